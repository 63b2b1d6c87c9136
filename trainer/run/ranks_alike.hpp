// What the ranks of a run must have alike: configuration and data. Each reads its own, from its own disk where those are
// copied to every host; a mixture would train, and nobody would know.
#pragma once

#include "comm/communicator.hpp"
#include "trainer/config/config.hpp"
#include "trainer/run/run_data.hpp"

namespace muster {

// Collective. Throws UserError that names the rank and what it has otherwise than rank 0. Where its data lie and how
// many threads it has are a rank's own.
void refuse_unlike_ranks(Communicator& comm, const Config& config, const RunData& data);

}  // namespace muster
