#include "trainer/plan/host_memory.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

#include "core/error.hpp"
#include "core/text.hpp"

namespace muster {

std::string_view remedy(MemoryKind largest) {
  if (largest == MemoryKind::activations)
    return "lower train.micro_batch, or set train.recompute = \"block\"";
  if (largest == MemoryKind::gradients) return "use train.reduction = \"fast\", or fewer train.shards";
  return "choose a smaller model, or fewer ranks on a host";
}

void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks) {
  const std::uint64_t share = available / static_cast<std::uint64_t>(local_ranks);
  const std::uint64_t total = std::accumulate(planned.begin(), planned.end(), std::uint64_t{0});
  if (total <= share) return;
  const auto largest = std::max_element(planned.begin(), planned.end());
  const auto kind = static_cast<MemoryKind>(largest - planned.begin());
  throw UserError(
      "the plan needs {} a rank, {} of it for {}, but this host leaves {} to each of its {} ranks: {}",
      human_bytes(total), human_bytes(*largest), name_of(kind), human_bytes(share), local_ranks,
      remedy(kind));
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
