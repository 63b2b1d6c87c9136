#include "trainer/plan/memory_check.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>
#include <string>

#include "core/error.hpp"
#include "core/text.hpp"

namespace muster {

std::uint64_t total_of(const MemoryByKind& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0});
}

Demand demand_on_host(const MemoryByKind& planned, std::uint64_t available, int local_ranks) {
  const std::uint64_t share = available / static_cast<std::uint64_t>(local_ranks);
  return {planned, 0, share,
          fmt::format("this host leaves {} to each of its {} ranks", human_bytes(share), local_ranks)};
}

Demand demand_on(const Device& device, const MemoryByKind& planned, int ranks, int local_ranks) {
  const std::uint64_t available = device.available_bytes();
  if (device.kind() == DeviceKind::cpu) return demand_on_host(planned, available, local_ranks);
  return {planned, gpu_runtime_bytes(ranks), available,
          fmt::format("{} has {} left", device.name(), human_bytes(available))};
}

Demand demand_on(const DeviceModel& device, const MemoryByKind& planned, std::uint64_t runtime_bytes) {
  return {planned, runtime_bytes, device.memory_bytes,
          fmt::format("{} has {}", device.name, human_bytes(device.memory_bytes))};
}

void refuse_if_too_large(const Demand& demand, const std::function<std::string()>& remedy) {
  if (demand.fits()) return;
  const auto largest = std::ranges::max_element(demand.planned);
  throw UserError("the plan {} {} a rank, {} of it for {}, but {}: {}",
                  demand.runtime_bytes > 0 ? "and the libraries need" : "needs", human_bytes(demand.needed()),
                  human_bytes(*largest), name_of(static_cast<MemoryKind>(largest - demand.planned.begin())),
                  demand.there, remedy());
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
