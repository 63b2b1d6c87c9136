#include "trainer/checkpoint/folder.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <set>
#include <string_view>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "comm/agree.hpp"
#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"
#include "core/text.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

enum class Stage { complete, partial, replaced, removing };

struct FolderName {
  std::int64_t step = 0, attempt = 0;
  Stage stage = Stage::complete;
  bool usual = true;  // as checkpoint_path() writes the step
};

std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t value = 0;
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  const bool found = text.starts_with(prefix);
  if (found) text.remove_prefix(prefix.size());
  return found;
}

// Nothing for what this program did not name.
std::optional<FolderName> parse_name(std::string_view text) {
  FolderName name;
  if (!take(text, "step-")) return std::nullopt;
  const std::size_t before = text.size();
  const auto step = take_number(text);
  if (!step || before - text.size() < 8) return std::nullopt;
  name.step = *step;
  name.usual = before - text.size() == std::max<std::size_t>(8, fmt::formatted_size("{}", *step));
  if (text.empty()) return name;
  if (text.ends_with(".removing")) {  // whatever it was before
    name.stage = Stage::removing;
    return name;
  }
  name.stage = text.starts_with(".partial-") ? Stage::partial : Stage::replaced;
  if (!take(text, ".partial-") && !take(text, ".replaced-")) return std::nullopt;
  const auto attempt = take_number(text);
  if (!attempt || *attempt > Attempt::most || !text.empty()) return std::nullopt;
  name.attempt = *attempt;
  return name;
}

struct Entry {
  std::string path;
  FolderName name;
};

std::vector<Entry> entries_of(const std::string& folder) {
  std::vector<Entry> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (const auto name = parse_name(at->path().filename().string()))
      entries.push_back({folder + "/" + at->path().filename().string(), *name});
  if (error && error != std::errc::no_such_file_or_directory)
    throw UserError("cannot list {}: {}: check its permissions", folder, error.message());
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.name.step, a.path) < std::tie(b.name.step, b.path);
  });
  return entries;
}

// What is wrong with a whole checkpoint under this name; empty if nothing is. A copy under a later name would be taken for
// what the run reached last.
std::string problem_of_name(const std::string& path, const Manifest& manifest) {
  const auto name = parse_name(fs::path(path).filename().string());
  if (!name || (name->usual && name->step == manifest.step)) return {};
  return fmt::format("it holds step {} under another name: rename it to {}", manifest.step,
                     fs::path(checkpoint_path("", manifest.step)).filename().string());
}

std::vector<std::string> problems_of(const std::string& path, const Manifest& manifest, Trust verify,
                                     std::size_t share, std::size_t shares) {
  std::vector<std::string> problems;
  for (std::size_t rank = share; rank < manifest.files.size(); rank += shares) {
    const std::string file = path + "/" + rank_file_name(rank);
    const auto& [bytes, hash] = manifest.files[rank];
    std::error_code error;
    if (!fs::is_regular_file(file, error)) {
      problems.push_back(fmt::format("{} is missing", file));
      continue;
    }
    try {
      if (const std::uint64_t size = File::open_to_read(file).size(); size != bytes)
        problems.push_back(fmt::format("{} has {} bytes and its manifest says {}", file, size, bytes));
      else if (verify == Trust::full && hash_file(file) != hash)
        problems.push_back(fmt::format("{} was altered: its checksum does not match", file));
    } catch (const UserError& failure) {
      problems.emplace_back(failure.what());
    }
  }
  return problems;
}

CheckpointInfo examine(const Entry& entry) {
  CheckpointInfo info;
  info.path = entry.path;
  info.step = entry.name.step;
  info.attempt = entry.name.attempt;
  info.finished = entry.name.stage == Stage::complete;
  switch (entry.name.stage) {
    case Stage::partial:
      info.problem = "it was never finished";
      return info;
    case Stage::replaced:
      info.problem = "another one was saved in its place";
      return info;
    case Stage::removing:
      info.problem = "it is being removed";
      return info;
    case Stage::complete:
      break;
  }
  try {
    const Manifest manifest = read_manifest(entry.path);
    info.attempt = manifest.attempt;
    info.saved = manifest.saved;
    info.files = manifest.files.size();
    for (const Manifest::File& file : manifest.files) info.bytes += file.bytes;
    info.problem = problem_of_name(entry.path, manifest);
    if (info.problem.empty()) {
      const auto problems = problems_of(entry.path, manifest, Trust::sizes, 0, 1);
      if (!problems.empty()) info.problem = problems.front();
    }
    info.complete = info.problem.empty();
  } catch (const UserError& error) {
    info.problem = error.what();
  }
  return info;
}

void rename_or_fail(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw UserError("cannot rename {} to {}: {}: check its permissions", from, to, error.message());
}

using Beat = std::function<void()>;

void remove_tree(const std::string& path, const Beat& beat) {
  std::error_code error;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    fs::remove_all(at->path(), error);
    beat();
    if (error) break;
  }
  if (!error || error == std::errc::no_such_file_or_directory) fs::remove_all(path, error);
  if (error) throw UserError("cannot remove {}: {}: check its permissions", path, error.message());
  beat();
}

// The rename comes first: what a kill leaves behind has a name that nobody reads.
void remove_checkpoint(const std::string& path, const Beat& beat) {
  if (faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0)  // the rename would succeed all the same
    throw UserError("cannot remove {}: {}: check its permissions", path, std::strerror(errno));
  const std::string doomed = path + ".removing";
  remove_tree(doomed, beat);
  rename_or_fail(path, doomed);
  remove_tree(doomed, beat);
}

std::uint64_t bytes_below(const std::string& path) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    if (const std::uintmax_t size = fs::file_size(at->path(), gone); !gone) bytes += size;
  }
  return bytes;
}

bool is_leftover(const Entry& entry, std::int64_t attempt) {
  return entry.name.stage == Stage::removing ||
         (entry.name.stage == Stage::partial && entry.name.attempt < attempt);
}

// What need not stay: what `attempt` finds left over, and the complete checkpoints but the `keep` latest saved.
std::vector<Entry> superfluous(const std::string& folder, std::int64_t keep, std::int64_t attempt) {
  std::vector<Entry> all;
  std::vector<std::pair<CheckpointInfo, Entry>> complete;
  for (const Entry& entry : entries_of(folder)) {
    if (is_leftover(entry, attempt) || (entry.name.stage == Stage::replaced && keep > 0))
      all.push_back(entry);
    if (entry.name.stage != Stage::complete || keep == 0) continue;
    if (CheckpointInfo info = examine(entry); info.complete) complete.emplace_back(std::move(info), entry);
  }
  // A later attempt may have gone back: its checkpoints are the latest, whatever their steps.
  std::sort(complete.begin(), complete.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first.attempt, a.first.step) > std::tie(b.first.attempt, b.first.step);
  });
  for (std::size_t i = static_cast<std::size_t>(keep); keep > 0 && i < complete.size(); ++i)
    all.push_back(complete[i].second);
  return all;
}

void remove_all_of(const std::vector<Entry>& entries, const Warn& warn, const Beat& beat) {
  for (const Entry& entry : entries) {
    try {
      if (entry.name.stage == Stage::removing)
        remove_tree(entry.path, beat);
      else
        remove_checkpoint(entry.path, beat);
    } catch (const UserError& error) {
      warn(error.what());
    }
  }
}

void warn_of(const Entry& entry, const std::string& problem, const Warn& warn) {
  warn(fmt::format("skipping {}: {}", entry.path, problem));
}

// Checkpoints that are complete by their sizes, the newest first. A run that lives saves others meanwhile and removes
// these: when they are through, those that came are looked at.
class Candidates {
 public:
  explicit Candidates(const std::string& folder) : folder_(folder), entries_(entries_of(folder)) {}

  // Warns of what it passes over.
  std::optional<Entry> next(const Warn& warn) {
    while (!entries_.empty() || list_again()) {
      Entry entry = std::move(entries_.back());
      entries_.pop_back();
      seen_.insert(entry.path);
      const CheckpointInfo info = examine(entry);
      if (info.complete) return entry;
      std::error_code error;
      if (fs::exists(entry.path, error)) warn_of(entry, info.problem, warn);
    }
    return std::nullopt;
  }

 private:
  bool list_again() {
    for (Entry& entry : entries_of(folder_))
      if (entry.name.stage == Stage::complete && !seen_.contains(entry.path))
        entries_.push_back(std::move(entry));
    return !entries_.empty();
  }

  std::string folder_;
  std::vector<Entry> entries_;
  std::set<std::string> seen_;
};

}  // namespace

std::string checkpoint_path(const std::string& folder, std::int64_t step) {
  return fmt::format("{}/step-{:08}", folder, step);
}

std::string partial_path(const std::string& folder, std::int64_t step, std::int64_t attempt) {
  return fmt::format("{}.partial-{}", checkpoint_path(folder, step), attempt);
}

std::string replaced_path(const std::string& folder, std::int64_t step, std::int64_t attempt) {
  return fmt::format("{}.replaced-{}", checkpoint_path(folder, step), attempt);
}

std::vector<CheckpointInfo> list_checkpoints(const std::string& folder) {
  std::vector<CheckpointInfo> infos;
  for (const Entry& entry : entries_of(folder)) infos.push_back(examine(entry));
  return infos;
}

std::vector<std::string> verify_checkpoint(const std::string& path, Trust verify, std::size_t share,
                                           std::size_t shares) {
  try {
    const Manifest manifest = read_manifest(path);
    if (std::string problem = problem_of_name(path, manifest); !problem.empty()) return {std::move(problem)};
    return problems_of(path, manifest, verify, share, shares);
  } catch (const UserError& error) {
    return {error.what()};
  }
}

std::optional<std::int64_t> newest_complete(const std::string& folder, Trust verify, const Warn& warn) {
  Candidates candidates(folder);
  while (const auto entry = candidates.next(warn)) {
    if (verify != Trust::full) return entry->name.step;
    const auto problems = verify_checkpoint(entry->path);
    if (problems.empty()) return entry->name.step;
    warn_of(*entry, problems.front(), warn);
  }
  return std::nullopt;
}

std::optional<std::int64_t> newest_complete(Communicator& comm, const std::string& folder, Trust verify,
                                            const Warn& warn) {
  const bool first = comm.rank() == 0;
  std::optional<Candidates> candidates;
  while (true) {
    std::string mine;
    agree(comm, "looking for checkpoints", [&] {
      if (!first) return;
      if (!candidates) candidates.emplace(folder);
      if (const auto entry = candidates->next(warn)) mine = entry->path;
    });
    const std::string path = gather_strings(comm, mine, "the newest checkpoint").front();
    if (path.empty()) return std::nullopt;
    const Entry entry{path, parse_name(fs::path(path).filename().string()).value()};
    if (verify != Trust::full) return entry.name.step;
    const auto problems = [&] {
      const Pulse::Work work = comm.pulse().work("checking a checkpoint");
      return verify_checkpoint(path, Trust::full, static_cast<std::size_t>(comm.rank()),
                               static_cast<std::size_t>(comm.size()));
    }();
    std::string problem;
    for (const std::string& told :
         gather_strings(comm, problems.empty() ? "" : problems.front(), "what is wrong with a checkpoint"))
      if (problem.empty()) problem = told;
    if (problem.empty()) return entry.name.step;
    if (first) warn_of(entry, problem, warn);
  }
}

void keep_newest(const std::string& folder, std::int64_t keep, std::int64_t attempt, const Warn& warn,
                 const Beat& beat) {
  check(keep >= 0, "keep_newest needs a number of checkpoints of at least 0");
  remove_all_of(superfluous(folder, keep, attempt), warn, beat);
}

void remove_leftovers(const std::string& folder, std::int64_t attempt, const Warn& warn, const Beat& beat) {
  std::vector<Entry> entries = entries_of(folder);
  std::erase_if(entries, [&](const Entry& entry) { return !is_leftover(entry, attempt); });
  remove_all_of(entries, warn, beat);
}

std::uint64_t removable_bytes(const std::string& folder, std::int64_t keep) {
  std::uint64_t bytes = 0;
  for (const Entry& entry : superfluous(folder, keep, next_attempt)) bytes += bytes_below(entry.path);
  return bytes;
}

std::string describe_leftovers(const std::string& folder, std::int64_t attempt) {
  std::string all;
  for (const Entry& entry : entries_of(folder))
    if (is_leftover(entry, attempt))
      all +=
          fmt::format("{}{} ({})", all.empty() ? "" : ", ", entry.path, human_bytes(bytes_below(entry.path)));
  return all;
}

}  // namespace muster
