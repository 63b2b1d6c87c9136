#include "trainer/plan/host_memory.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

#include "core/error.hpp"
#include "core/text.hpp"
#include "trainer/plan/devices.hpp"

namespace muster {
namespace {

std::uint64_t total_of(const MemoryByKind& planned) {
  return std::accumulate(planned.begin(), planned.end(), std::uint64_t{0});
}

MemoryKind largest_of(const MemoryByKind& planned) {
  return static_cast<MemoryKind>(std::ranges::max_element(planned) - planned.begin());
}

}  // namespace

std::string_view remedy(MemoryKind largest) {
  if (largest == MemoryKind::activations)
    return "lower train.micro_batch, or set train.recompute = \"block\"";
  if (largest == MemoryKind::gradients) return "use train.reduction = \"fast\", or fewer train.shards";
  return "choose a smaller model, or fewer ranks on a host";
}

void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks) {
  const std::uint64_t share = available / static_cast<std::uint64_t>(local_ranks);
  const std::uint64_t total = total_of(planned);
  if (total <= share) return;
  const MemoryKind kind = largest_of(planned);
  throw UserError(
      "the plan needs {} a rank, {} of it for {}, but this host leaves {} to each of its {} ranks: {}",
      human_bytes(total), human_bytes(planned[static_cast<std::size_t>(kind)]), name_of(kind),
      human_bytes(share), local_ranks, remedy(kind));
}

void refuse_if_too_large(const MemoryByKind& planned, const Device& device, int ranks, int local_ranks) {
  const std::uint64_t available = device.available_bytes();
  if (device.kind() == DeviceKind::cpu) return refuse_if_too_large(planned, available, local_ranks);
  const std::uint64_t total = total_of(planned) + gpu_runtime_bytes(ranks);
  if (total <= available) return;
  const MemoryKind kind = largest_of(planned);
  throw UserError("the plan and the libraries need {} a rank, {} of it for {}, but {} has {} left: {}",
                  human_bytes(total), human_bytes(planned[static_cast<std::size_t>(kind)]), name_of(kind),
                  device.name(), human_bytes(available), remedy(kind));
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
