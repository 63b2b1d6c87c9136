// The parameters are the same on all ranks, which each hold a replica.
#pragma once

#include "comm/communicator.hpp"
#include "trainer/step/model_state.hpp"

namespace muster {

// Collective. Throws Defect naming the ranks unless the parameters are the same bits on all of them.
void check_replicas(ModelState& state, Communicator& comm);

}  // namespace muster
