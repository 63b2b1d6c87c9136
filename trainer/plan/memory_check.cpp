#include "trainer/plan/memory_check.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "core/text.hpp"

namespace muster {
namespace {

// What a user can do when memory does not suffice and this kind takes most of it.
std::string_view remedy(MemoryKind largest) {
  if (largest == MemoryKind::activations)
    return "lower train.micro_batch, or set train.recompute = \"block\"";
  if (largest == MemoryKind::gradients) return "use train.reduction = \"fast\", or fewer train.shards";
  return "choose a smaller model, or fewer ranks on a host";
}

// `there` ends the sentence "..., but".
void refuse_above(std::uint64_t available, const MemoryByKind& planned, std::uint64_t runtime_bytes,
                  const std::string& there) {
  const std::uint64_t total = total_of(planned) + runtime_bytes;
  if (total <= available) return;
  const auto largest = std::ranges::max_element(planned);
  const auto kind = static_cast<MemoryKind>(largest - planned.begin());
  throw UserError("the plan {} {} a rank, {} of it for {}, but {}: {}",
                  runtime_bytes > 0 ? "and the libraries need" : "needs", human_bytes(total),
                  human_bytes(*largest), name_of(kind), there, remedy(kind));
}

}  // namespace

std::uint64_t total_of(const MemoryByKind& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0});
}

void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks) {
  const std::uint64_t share = available / static_cast<std::uint64_t>(local_ranks);
  refuse_above(share, planned, 0,
               fmt::format("this host leaves {} to each of its {} ranks", human_bytes(share), local_ranks));
}

void refuse_if_too_large(const MemoryByKind& planned, const Device& device, int ranks, int local_ranks) {
  const std::uint64_t available = device.available_bytes();
  if (device.kind() == DeviceKind::cpu) return refuse_if_too_large(planned, available, local_ranks);
  refuse_above(available, planned, gpu_runtime_bytes(ranks),
               fmt::format("{} has {} left", device.name(), human_bytes(available)));
}

void refuse_if_too_large_for(const DeviceModel& device, const MemoryByKind& planned,
                             std::uint64_t runtime_bytes) {
  refuse_above(device.memory_bytes, planned, runtime_bytes,
               fmt::format("{} has {}", device.name, human_bytes(device.memory_bytes)));
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
