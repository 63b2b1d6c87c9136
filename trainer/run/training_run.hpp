// A training run from its configuration to its end: folder, plan, fresh or resumed state, steps, evaluations,
// checkpoints.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "comm/communicator.hpp"
#include "trainer/config/config.hpp"
#include "trainer/run/evaluation.hpp"
#include "trainer/step/machine.hpp"
#include "trainer/step/training_step.hpp"

namespace muster {

// What a run stands on.
struct RunHost {
  Ranks ranks;
  Machine& machine;
  // Whether this rank was asked to stop; asked at every safe point, `step` being the one under way or just ended.
  std::function<bool(std::int64_t step)> stop_requested;
  std::int64_t traced_step = 0;  // of this step a trace is written; 0: none
  bool console = false;          // whether rank 0 also writes to the screen
  // Told how many steps are not in a checkpoint yet.
  std::function<void(std::int64_t steps)> unsaved = [](std::int64_t) {};
};

struct RunResult {
  Position position;
  bool interrupted = false;     // a signal or the time limit ended it before train.steps
  EvaluationResult evaluation;  // the last; targets = 0: there was none
};

// Collective. Errors that every rank knows are thrown by every rank (comm/agree.hpp).
RunResult run_training(Config config, const RunHost& host);

}  // namespace muster
