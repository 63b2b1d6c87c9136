// A training step by op: what each takes of it, and what is left for the update, communication and gaps.
#pragma once

#include <string>
#include <vector>

#include "trainer/bench/synthetic_run.hpp"
#include "trainer/plan/cost.hpp"

namespace muster {

struct StepTable {
  std::vector<StepSample> samples;   // of steps as a training run takes them
  double seconds = 0;                // of these, median
  double exposed = 0;                // the same, waiting for other ranks
  double timed_seconds = 0;          // of a step kernel by kernel, median: what the rows divide
  std::vector<OpShare> rows;         // of all micro-batches of this rank, the largest first
  double rest = 0;                   // of timed_seconds, outside the plan's kernels
  std::vector<double> plan_seconds;  // of each step of the plan, median
};

// Each figure is the median of the steps.
StepTable step_table(const RunPlan& plan, std::vector<StepSample> samples,
                     const std::vector<SyntheticRun::Timed>& timed);

// Collective. Of `steps` steps of each kind, after two that are not counted.
StepTable bench_step(SyntheticRun& run, int steps);

}  // namespace muster
