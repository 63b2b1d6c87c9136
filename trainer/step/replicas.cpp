#include "trainer/step/replicas.hpp"

#include <cstddef>
#include <fmt/format.h>
#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "trainer/step/transfer.hpp"

namespace muster {

void check_replicas(ModelState& state, Communicator& comm) {
  std::string mine;
  Transfer(state.machine).download(state.master.as<float>(), [&](std::int64_t, std::span<const float> piece) {
    mine += hex(hash_bytes(std::as_bytes(piece)));
  });
  const std::vector<std::string> all = gather_strings(comm, mine, "hashes of the parameters");
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (all[rank] != all[0])
      throw Defect(fmt::format("rank {} holds other parameters than rank 0 (hashes {} and {})", rank,
                               all[rank], all[0]));
}

}  // namespace muster
