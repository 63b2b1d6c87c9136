#include "core/host.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
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

// The cache of files counts as used there, but gives way to whoever needs memory.
std::uint64_t left_in(const fs::path& group) {
  const auto limit = number_in(group / "memory.max"), used = number_in(group / "memory.current");
  if (!limit || !used) return limit.value_or(unlimited);
  const std::uint64_t files = field(group / "memory.stat", "active_file").value_or(0) +
                              field(group / "memory.stat", "inactive_file").value_or(0);
  const std::uint64_t held = *used - std::min(*used, files);
  return *limit - std::min(*limit, held);
}

// Each group that holds this process may have a limit, the outer ones too.
std::uint64_t left_in_control_groups() {
  const fs::path root = "/sys/fs/cgroup";
  fs::path group = root;
  std::ifstream mine("/proc/self/cgroup");
  for (std::string line; std::getline(mine, line);)
    if (line.starts_with("0::/")) group = root / line.substr(4);
  std::uint64_t left = left_in(root);
  for (; group != root && group.has_relative_path(); group = group.parent_path())
    left = std::min(left, left_in(group));
  return left;
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == 0) return "unknown";
  return name.data();
}

std::string host_identity() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  file >> boot;
  return host_name() + " " + boot;
}

std::uint64_t available_host_bytes() {
  const auto free = field("/proc/meminfo", "MemAvailable:");
  return std::min(free ? *free * 1024 : unlimited, left_in_control_groups());
}

std::uint64_t resident_bytes() {
  return kilobytes("/proc/self/status", "RssAnon:") + kilobytes("/proc/self/status", "RssShmem:");
}

}  // namespace muster
