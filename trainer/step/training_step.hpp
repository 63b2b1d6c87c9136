// One training step on one rank: backward, the reduction behind it, the norm, the update, the gathering of
// parameters.
//
//   loss = (sum of the losses of all valid targets) / N,  norm = ||gradient of the sum|| / N
//   factor = min(1, clip / (norm + 1e-6));  AdamW on gradient * (factor / N)
//
// N is the number of valid targets of the global batch, counted by the ranks together. The update is skipped
// when N = 0 or when the loss or the norm is not finite.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "core/stream.hpp"
#include "data/prefetch.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/backward.hpp"
#include "trainer/step/gradient_exchange.hpp"
#include "trainer/step/gradient_norm.hpp"
#include "trainer/step/leaf_reports.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/update.hpp"
#include "trainer/step/wait_clock.hpp"

namespace muster {

// Where a run stands; what a checkpoint keeps of it.
struct Progress {
  std::int64_t step = 0;     // steps taken; samples consumed are step x batch
  std::int64_t updates = 0;  // of the optimizer: steps that were not skipped
  std::int64_t targets = 0;  // valid targets seen
};

struct StepResult {
  double loss = 0;
  double grad_norm = 0;
  std::int64_t targets = 0;  // N
  bool skipped = false;
  bool clipped = false;
  bool stop = false;  // some rank was asked to stop
  double wait_data_ms = 0;
  double wait_comm_ms = 0;  // for other ranks
};

class TrainingStep {
 public:
  TrainingStep(const Config& config, const RunPlan& plan, ModelState& state, Communicator& comm,
               Stream& stream, MemoryAccount& account);

  void request(Prefetch& prefetch, std::int64_t step) const { backward_.request(prefetch, step); }

  // Takes step `progress.step` and advances `progress`. `stop` is this rank's wish to end. When any rank
  // fails to read its data, all ranks throw its error.
  StepResult run(Prefetch& prefetch, Progress& progress, double lr, bool stop);

 private:
  AdamW rule(const StepResult& result, std::int64_t updates, double lr) const;

  const Config& config_;
  const RunPlan& plan_;
  Communicator& comm_;
  Stream& stream_;
  WaitClock waits_;
  GradientExchange exchange_;
  Backward backward_;
  LeafReports reports_;
  GradientNorm norm_;
  Update update_;
  std::vector<std::span<float>> sums_;  // by bucket: this rank's piece of the summed gradient
};

}  // namespace muster
