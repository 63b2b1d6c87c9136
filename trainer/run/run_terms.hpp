// What the ranks of a run know alike before anything of it is taken or written.
#pragma once

#include <cstdint>

#include "trainer/checkpoint/run_state.hpp"
#include "trainer/config/config.hpp"
#include "trainer/loop/run_host.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/run/run_data.hpp"

namespace muster {

struct RunTerms {
  Config told;                      // as it is kept in the run, for any number of ranks
  Config config;                    // for this number of them
  std::uint64_t runtime_bytes = 0;  // that libraries held before
  RunPlan plan;
  RunState state;  // what its checkpoints tell of it, as it begins
};

// Collective. Throws UserError where ranks differ that must not, or where the plan does not fit their memory.
RunTerms agree_on_terms(const Config& told, const RunData& data, const RunHost& host);

}  // namespace muster
