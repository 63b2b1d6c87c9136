#include "trainer/run_folder.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/host.hpp"
#include "core/text.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    throw UserError("cannot make the folder {}: {}; choose another run.dir or mend it", path,
                    error.message());
}

// The largest number that names a file in `path`, of those that an attempt may have.
std::int64_t newest_number(const std::string& path) {
  std::int64_t newest = 0;
  std::error_code error;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const auto number = parse_number<std::int64_t>(name);
    if (number && *number <= Manifest::most_attempts) newest = std::max(newest, *number);
  }
  if (error) throw UserError("cannot list {}: {}; check its permissions", path, error.message());
  return newest;
}

}  // namespace

void RunFolder::create() const {
  for (const std::string& folder : {path_, checkpoints(), attempts(), path_ + "/log"}) make_folder(folder);
}

void RunFolder::require_empty() const {
  std::error_code error;
  if (!fs::exists(path_, error)) return;
  if (!fs::is_directory(path_, error))
    throw UserError("run.dir = {} is not a folder; choose another run.dir", path_);
  if (!fs::is_empty(path_, error) || error)
    throw UserError(
        "run.dir = {} is not empty, and run.fresh wants an empty folder; choose another run.dir or "
        "remove it",
        path_);
}

void RunFolder::require_run() const {
  std::error_code error;
  if (!fs::exists(config(), error))
    throw UserError(
        "{} holds no run: it has no config.toml; name the run.dir of a run that muster train began", path_);
}

std::string Attempt::file(std::int64_t number) const {
  return fmt::format("{}/{:06}", folder_.attempts(), number);
}

Attempt Attempt::begin(const RunFolder& folder, std::int64_t of_checkpoints) {
  const std::int64_t newest = newest_number(folder.attempts());
  // One that lives looks for the number after its own.
  if (of_checkpoints > newest) File::create(Attempt(folder, newest + 1).file(newest + 1));
  for (std::int64_t number = std::max(of_checkpoints, newest) + 1;; ++number) {
    const Attempt attempt(folder, number);
    const std::string path = attempt.file(number);
    const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor < 0 && errno == EEXIST) continue;  // another one started at the same moment
    if (descriptor < 0)
      throw UserError("cannot create {}: {}; check the permissions and the space of run.dir", path,
                      std::strerror(errno));
    const std::string text = nlohmann::ordered_json{{"attempt", number},
                                                    {"host", host_name()},
                                                    {"pid", getpid()},
                                                    {"started", start_of_process(getpid()).value_or(0)},
                                                    {"boot", boot_id()}}
                                 .dump() +
                             "\n";
    File::adopt(descriptor, path).write(text);
    sync_path(folder.attempts());
    return attempt;
  }
}

std::optional<Attempt::Holder> Attempt::newest(const RunFolder& folder) {
  std::error_code error;
  if (!fs::exists(folder.attempts(), error)) return std::nullopt;
  const std::int64_t number = newest_number(folder.attempts());
  return Attempt(folder, number).holder(number);
}

Attempt Attempt::join(const RunFolder& folder, std::int64_t number) {
  Attempt attempt(folder, number);
  if (!attempt.exists(number))
    throw UserError("{} of rank 0 is not here, on {}: let run.dir lie on a disk that all hosts share",
                    attempt.file(number), host_name());
  return attempt;
}

bool Attempt::exists(std::int64_t number) const {
  // A disk of the network may remember that the file was not there, until somebody opens its folder.
  try {
    File::open_to_read(folder_.attempts());
  } catch (const UserError&) {
    return false;
  }
  return access(file(number).c_str(), F_OK) == 0;
}

std::optional<Attempt::Holder> Attempt::holder(std::int64_t number) const {
  const std::string path = file(number);
  if (!exists(number)) return std::nullopt;
  Holder holder{.number = number, .host = "unknown"};
  // Whoever made the file may not have written it yet, or died before.
  const auto json = nlohmann::json::parse(read_text(path), nullptr, false);
  if (json.is_object() && json.contains("host") && json["host"].is_string()) holder.host = json["host"];
  if (json.is_object() && json.contains("pid") && json["pid"].is_number_integer()) holder.pid = json["pid"];
  const bool of_this_host = json.is_object() && json.contains("boot") && json["boot"] == boot_id();
  holder.alive = of_this_host && holder.pid != getpid() && json.contains("started") &&
                 json["started"] == start_of_process(holder.pid).value_or(0);
  return holder;
}

std::optional<Attempt::Holder> Attempt::previous() const { return holder(number_ - 1); }

bool Attempt::still_current() const { return !exists(number_ + 1); }

void Attempt::check_current() const {
  if (still_current()) return;
  const Holder newer = holder(number_ + 1).value_or(Holder{.number = number_ + 1, .host = "unknown"});
  throw UserError("attempt {} of {} ends: attempt {} (host {}, pid {}) has taken the run over", number_,
                  folder_.path(), newer.number, newer.host, newer.pid);
}

}  // namespace muster
