// A training run on made-up tokens: its steps are those of any run, its losses mean nothing.
#pragma once

#include <numeric>
#include <optional>
#include <vector>

#include "comm/watchdog.hpp"
#include "data/prefetch.hpp"
#include "trainer/loop/steps_ahead.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/training_step.hpp"

namespace muster {

struct StepSample {
  double seconds = 0;         // from the end of the step before
  std::vector<double> waits;  // of these, at each point at which the ranks wait for each other
  double exposed() const { return std::accumulate(waits.begin(), waits.end(), 0.0); }
};

class SyntheticRun {
 public:
  // Collective. Throws UserError, the same on all ranks, when the run does not fit the memory.
  SyntheticRun(const Config& config, Ranks ranks, Machine& machine);

  const RunPlan& plan() const { return plan_; }

  // Takes steps as a training run does: on GPUs the host is one ahead. A rank that fails alone ends the job.
  std::vector<StepSample> run(int steps);

  struct Timed {
    StepSample step;
    std::vector<double> plan_seconds;  // of each step of the plan, in the last micro-batch
  };
  // Takes one step kernel by kernel.
  Timed run_timed();

 private:
  std::vector<StepSample> take_steps(int steps);
  Timed take_timed_step();

  const Config config_;
  Machine& machine_;
  RunPlan plan_;
  Prefetch prefetch_;
  ModelState state_;
  Communicator& comm_;  // of the hosts
  Watchdog watchdog_;
  std::optional<Watchdog> device_watchdog_;  // where the devices have a communicator of their own
  Position position_;
  TrainingStep step_;
  StepsAhead steps_;
};

}  // namespace muster
