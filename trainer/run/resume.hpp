// What a run goes on from, and with what it may not.
#pragma once

#include "trainer/checkpoint/load.hpp"
#include "trainer/config/config.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run/snapshot.hpp"

namespace muster {

// Throws UserError when the configuration or its data are not those that the checkpoint was trained with, as far as
// they must be.
RunState state_to_resume(const Checkpoint& checkpoint, const Config& config, const RunData& data);

}  // namespace muster
