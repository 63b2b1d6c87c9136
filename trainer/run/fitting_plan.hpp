// The plan of a rank's run, on the machine that it will run on.
#pragma once

#include <cstdint>

#include "trainer/plan/run_plan.hpp"
#include "trainer/step/machine.hpp"
#include "trainer/step/ranks.hpp"

namespace muster {

// Collective. Throws UserError on every rank when the plan does not fit the memory of some rank's device or host.
// The configuration is as it was told, or from for_ranks(). `data_bytes` is what its data will take.
RunPlan fitting_plan(const Config& config, const Ranks& ranks, const Machine& machine,
                     std::uint64_t data_bytes);

}  // namespace muster
