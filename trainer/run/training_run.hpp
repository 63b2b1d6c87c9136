// A training run from its configuration to its end.
//
// It starts in this order: what all ranks know alike is agreed on, what cannot go on is refused, and only then is the run's
// folder taken, for that ends the attempt before; memory is taken and the checkpoint loaded; what the run has taken is
// compared with its plan. Then comes the loop (trainer/loop/training_loop.hpp).
#pragma once

#include "trainer/config/config.hpp"
#include "trainer/evaluate/evaluation.hpp"
#include "trainer/loop/run_host.hpp"
#include "trainer/step/position.hpp"

namespace muster {

struct RunResult {
  Position position;
  bool interrupted = false;     // a signal or the time limit ended it before train.steps
  EvaluationResult evaluation;  // the last; targets = 0: there was none
};

// Collective. Errors that every rank knows are thrown by every rank (comm/agree.hpp).
RunResult run_training(const Config& given, const RunHost& host);

}  // namespace muster
