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

#include "core/text.hpp"

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
template <class Number = std::uint64_t>
std::optional<Number> number_in(const fs::path& path) {
  std::ifstream file(path);
  Number value = 0;
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

// Where a version of control groups keeps a controller: the root of its tree, and this process's group in it.
struct Groups {
  fs::path root, group;
};
struct BothGroups {
  Groups of_version_1, of_version_2;
};

// Source: cgroups(7). A line of `mine` is "0::/path" in version 2, and "5:cpu,cpuacct:/path" in version 1, which has a
// tree for each controller.
BothGroups groups_of(const fs::path& root, const fs::path& mine, const std::string& controller) {
  BothGroups found{{root / controller, root / controller}, {root, root}};
  std::ifstream lines(mine);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t controllers = line.find(':') + 1, path = line.find(":/", controllers);
    if (path == std::string::npos) continue;
    const std::string names = fmt::format(",{},", line.substr(controllers, path - controllers));
    if (line.starts_with("0::")) found.of_version_2.group = root / line.substr(path + 2);
    if (names.find("," + controller + ",") != std::string::npos)
      found.of_version_1.group = root / controller / line.substr(path + 2);
  }
  return found;
}

// The least of what the groups that hold this process have, the outer ones too: each may have a limit.
template <class Of>
auto least_up_to(const Groups& groups, const Of& of) {
  auto least = of(groups.root);
  for (fs::path group = groups.group; group != groups.root && group.has_relative_path();
       group = group.parent_path())
    least = std::min(least, of(group));
  return least;
}

// Microseconds of processors in microseconds of time.
CpuQuota quota_in(const fs::path& group, std::optional<double> quota, std::optional<double> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return {};
  return {*quota / *period, group.string()};
}

CpuQuota quota_of_version_1(const fs::path& group) {
  return quota_in(group, number_in<double>(group / "cpu.cfs_quota_us"),
                  number_in<double>(group / "cpu.cfs_period_us"));
}

CpuQuota quota_of_version_2(const fs::path& group) {
  std::ifstream file(group / "cpu.max");  // "200000 100000", or "max 100000"
  double quota = 0, period = 0;
  return file >> quota >> period ? quota_in(group, quota, period) : CpuQuota{};
}

// Source: proc(5). The second field, in parentheses, is a name that may hold anything.
std::optional<std::uint64_t> start_in(const std::string& stat) {
  std::ifstream file(stat);
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

// A link to "pid:[4026531836]".
std::uint64_t pid_namespace() {
  std::error_code none;
  const std::string link = fs::read_symlink("/proc/self/ns/pid", none).string();
  const std::size_t begin = link.find('[') + 1, end = link.find(']');
  return end == std::string::npos
             ? 0
             : parse_number<std::uint64_t>(std::string_view(link).substr(begin, end - begin)).value_or(0);
}

std::optional<std::uint64_t> start_of_process(std::int64_t pid) {
  return start_in(fmt::format("/proc/{}/stat", pid));
}

// Not by its number: /proc may be that of another space.
std::optional<std::uint64_t> start_of_this_process() { return start_in("/proc/self/stat"); }
std::uint64_t available_host_bytes() {
  const auto free = field("/proc/meminfo", "MemAvailable:");
  return std::min(free ? *free * 1024 : unlimited,
                  left_in_control_groups("/sys/fs/cgroup", "/proc/self/cgroup"));
}

std::uint64_t left_in_control_groups(const std::filesystem::path& root, const std::filesystem::path& mine) {
  const BothGroups groups = groups_of(root, mine, "memory");
  return std::min(
      least_up_to(groups.of_version_1, [](const fs::path& group) { return left_in(group, version_1); }),
      least_up_to(groups.of_version_2, [](const fs::path& group) { return left_in(group, version_2); }));
}

CpuQuota cpu_quota() { return quota_of_control_groups("/sys/fs/cgroup", "/proc/self/cgroup"); }

CpuQuota quota_of_control_groups(const std::filesystem::path& root, const std::filesystem::path& mine) {
  const BothGroups groups = groups_of(root, mine, "cpu");
  return std::min(least_up_to(groups.of_version_1, quota_of_version_1),
                  least_up_to(groups.of_version_2, quota_of_version_2));
}

std::uint64_t resident_bytes() {
  return kilobytes("/proc/self/status", "RssAnon:") + kilobytes("/proc/self/status", "RssShmem:");
}

}  // namespace muster
