// What a run begins with: the checkpoint that it goes on from, or new parameters; and with what it may not.
#pragma once

#include <cstdint>

#include "comm/communicator.hpp"
#include "trainer/checkpoint/load.hpp"
#include "trainer/checkpoint/run_state.hpp"
#include "trainer/config/config.hpp"
#include "trainer/metrics/log.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run/run_terms.hpp"
#include "trainer/run_folder.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/position.hpp"

namespace muster {

// Throws UserError when the configuration or its data, as `now` tells of them, are not those that the checkpoint was
// trained with, as far as they must be.
RunState state_to_resume(const Checkpoint& checkpoint, const Config& config, const RunState& now);

// Collective, before the attempt, which ends the one before it: what cannot go on leaves that in peace. Throws UserError
// when the run cannot begin with what lies in `folder` and in its data.
void refuse_what_cannot_go_on(Communicator& comm, const RunTerms& terms, const RunData& data,
                              const RunFolder& folder, std::int64_t traced_step);

// Collective. Fills `state` from the newest checkpoint that is whole, or with the first parameters, and tells which.
Position resume_or_begin(Communicator& comm, const RunTerms& terms, const RunFolder& folder, const Log& log,
                         ModelState& state);

}  // namespace muster
