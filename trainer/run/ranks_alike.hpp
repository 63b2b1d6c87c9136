// What the ranks of a run must have alike: binary, configuration and data. Each reads its own, from its own disk where those are
// copied to every host; a mixture would train, and nobody would know.
#pragma once

#include <string>

#include "comm/communicator.hpp"
#include "trainer/config/config.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

// Collective. What this rank's bits depend on beside the configuration (build_info.hpp). Throws UserError where bits are
// promised and that of another rank differs.
std::string agree_on_fingerprint(Communicator& comm, const Config& config, const Machine& machine);

// Collective. Throws UserError that names the rank and what it has otherwise than rank 0. Where its data lie and how
// many threads it has are a rank's own.
void refuse_unlike_ranks(Communicator& comm, const Config& config, const RunData& data);

}  // namespace muster
