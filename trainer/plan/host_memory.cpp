#include "trainer/plan/host_memory.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

#include "core/error.hpp"
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

std::uint64_t available_bytes() {
  const auto free = field("/proc/meminfo", "MemAvailable:");
  return std::min(free ? *free * 1024 : unlimited, left_in_control_groups());
}

std::uint64_t resident_bytes() {
  return kilobytes("/proc/self/status", "RssAnon:") + kilobytes("/proc/self/status", "RssShmem:");
}

void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks) {
  const std::uint64_t share = available / static_cast<std::uint64_t>(local_ranks);
  const std::uint64_t total = std::accumulate(planned.begin(), planned.end(), std::uint64_t{0});
  if (total <= share) return;
  const auto largest = std::max_element(planned.begin(), planned.end());
  const auto kind = static_cast<MemoryKind>(largest - planned.begin());
  const char* remedy =
      kind == MemoryKind::activations ? "lower train.micro_batch, or set train.recompute = \"block\""
      : kind == MemoryKind::gradients ? "use train.reduction = \"fast\", or fewer train.shards"
                                      : "choose a smaller model, or fewer ranks on a host";
  throw UserError(
      "the plan needs {} a rank, {} of it for {}, but this host leaves {} to each of its {} ranks: {}",
      human_bytes(total), human_bytes(*largest), name_of(kind), human_bytes(share), local_ranks, remedy);
}

void check_as_planned(const MemoryAccount& account, const MemoryByKind& planned) {
  for (std::size_t k = 0; k < memory_kinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    if (account.now(kind) != planned[k])
      throw Defect(
          fmt::format("{} takes {} bytes, the plan says {}", name_of(kind), account.now(kind), planned[k]));
  }
}

}  // namespace muster
