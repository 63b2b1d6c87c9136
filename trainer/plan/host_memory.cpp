#include "trainer/plan/host_memory.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <limits>
#include <string>

#include "core/error.hpp"
#include "core/text.hpp"

namespace muster {
namespace {

constexpr std::uint64_t unknown = std::numeric_limits<std::uint64_t>::max();

// A field like "RssAnon:     1234 kB" of a file of /proc.
std::uint64_t kilobytes(const char* path, const std::string& field) {
  std::ifstream file(path);
  for (std::string name; file >> name;) {
    if (name == field) {
      std::uint64_t value = 0;
      file >> value;
      return value * 1024;
    }
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return unknown;
}

// A file that holds one number; "max" and a missing file mean no limit.
std::uint64_t number_in(const char* path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  return file >> value ? value : unknown;
}

std::uint64_t left_in_control_group() {
  const std::uint64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const std::uint64_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit == unknown) return unknown;
  return used == unknown || used > limit ? limit : limit - used;
}

}  // namespace

std::uint64_t available_bytes() {
  return std::min(kilobytes("/proc/meminfo", "MemAvailable:"), left_in_control_group());
}

std::uint64_t resident_bytes() {
  return kilobytes("/proc/self/status", "RssAnon:") + kilobytes("/proc/self/status", "RssShmem:");
}

void refuse_if_too_large(const RunPlan& plan, std::uint64_t available, int local_ranks) {
  const std::uint64_t share = available / static_cast<std::uint64_t>(local_ranks);
  if (plan.total_bytes() <= share) return;
  const auto largest = std::max_element(plan.memory.begin(), plan.memory.end());
  const auto kind = static_cast<MemoryKind>(largest - plan.memory.begin());
  const char* remedy =
      kind == MemoryKind::activations ? "lower train.micro_batch, or set train.recompute = \"block\""
      : kind == MemoryKind::gradients ? "use train.reduction = \"fast\", or fewer train.shards"
                                      : "choose a smaller model, or fewer ranks on a host";
  throw UserError(
      "the plan needs {} a rank, {} of it for {}, but this host leaves {} to each of its {} ranks: {}",
      human_bytes(plan.total_bytes()), human_bytes(*largest), name_of(kind), human_bytes(share), local_ranks,
      remedy);
}

}  // namespace muster
