#include "core/host.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>
#include <unistd.h>

namespace muster {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

// The number of a line like "RssAnon:     1234 kB".
std::optional<std::uint64_t> field(const fs::path& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    std::uint64_t value = 0;
    if (word == name && file >> value) return value;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

std::uint64_t kilobytes(const char* path, const std::string& name) {
  return field(path, name).value_or(0) * 1024;
}

// A file that holds one number; "max" and a missing file mean none.
std::optional<std::uint64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

// How a version of control groups names what it tells of memory.
struct GroupFiles {
  const char *limit, *used, *active_files, *inactive_files;
};
constexpr GroupFiles version_1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file",
                                  "total_inactive_file"};
constexpr GroupFiles version_2 = {"memory.max", "memory.current", "active_file", "inactive_file"};

// The cache of files counts as used there, but gives way to whoever needs memory.
std::uint64_t left_in(const fs::path& group, const GroupFiles& names) {
  const auto limit = number_in(group / names.limit), used = number_in(group / names.used);
  if (!limit || !used) return limit.value_or(unlimited);
  const std::uint64_t files = field(group / "memory.stat", names.active_files).value_or(0) +
                              field(group / "memory.stat", names.inactive_files).value_or(0);
  const std::uint64_t held = *used - std::min(*used, files);
  return *limit - std::min(*limit, held);
}

// Each group that holds this process may have a limit, the outer ones too.
std::uint64_t left_up_to(const fs::path& root, fs::path group, const GroupFiles& names) {
  std::uint64_t left = left_in(root, names);
  for (; group != root && group.has_relative_path(); group = group.parent_path())
    left = std::min(left, left_in(group, names));
  return left;
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == 0) return "unknown";
  return name.data();
}

std::string host_identity() { return host_name() + " " + boot_id(); }

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  file >> boot;
  return boot;
}

// Source: proc(5). The second field, in parentheses, is a name that may hold anything.
std::optional<std::uint64_t> start_of_process(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::string state, skipped;
  fields >> state;
  constexpr int fields_between = 18;  // of the third, state, and the twenty-second, starttime
  for (int i = 0; i < fields_between; ++i) fields >> skipped;
  std::uint64_t start = 0;
  if (!(fields >> start) || state == "Z" || state == "X") return std::nullopt;
  return start;
}

std::uint64_t available_host_bytes() {
  const auto free = field("/proc/meminfo", "MemAvailable:");
  return std::min(free ? *free * 1024 : unlimited,
                  left_in_control_groups("/sys/fs/cgroup", "/proc/self/cgroup"));
}

// Source: cgroups(7). A line of `mine` is "0::/path" in version 2, and "5:memory:/path" in version 1, which has a tree
// of its own for memory.
std::uint64_t left_in_control_groups(const std::filesystem::path& root, const std::filesystem::path& mine) {
  const fs::path old_root = root / "memory";
  fs::path group = root, old_group = old_root;
  std::ifstream lines(mine);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t controllers = line.find(':') + 1, path = line.find(":/", controllers);
    if (path == std::string::npos) continue;
    const std::string names = fmt::format(",{},", line.substr(controllers, path - controllers));
    if (line.starts_with("0::")) group = root / line.substr(path + 2);
    if (names.find(",memory,") != std::string::npos) old_group = old_root / line.substr(path + 2);
  }
  return std::min(left_up_to(root, group, version_2), left_up_to(old_root, old_group, version_1));
}

std::uint64_t resident_bytes() {
  return kilobytes("/proc/self/status", "RssAnon:") + kilobytes("/proc/self/status", "RssShmem:");
}

}  // namespace muster
