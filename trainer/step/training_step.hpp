// One training step on one rank: executes the entries of its schedule (trainer/plan/step_schedule.hpp), which alone says in
// which order. The host only appends them to the device's stream; what came of a step is read later.
//
//   loss = (sum of the losses of all valid targets) / N,  norm = ||gradient of the sum|| / N
//   factor = min(1, clip / (norm + 1e-6));  the optimizer's update by gradient * (factor / N)
//
// N is the number of valid targets of the global batch, counted by the ranks together. The update is skipped
// when N = 0 or when the loss or the norm is not finite (model/update/outcome.hpp).
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <span>
#include <vector>

#include "core/stream.hpp"
#include "data/prefetch.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/backward.hpp"
#include "trainer/step/gradient_exchange.hpp"
#include "trainer/step/gradient_norm.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/position.hpp"
#include "trainer/step/ranks.hpp"
#include "trainer/step/update.hpp"
#include "trainer/step/wait_clock.hpp"

namespace muster {

struct StepResult {
  double loss = 0;
  double grad_norm = 0;
  std::int64_t targets = 0;  // N
  bool skipped = false;
  bool clipped = false;
  bool stop = false;  // some rank was asked to stop
  double wait_data_ms = 0;
  std::vector<double> waits;          // seconds, each for other ranks; all ranks wait at the same points
  std::int64_t merged_documents = 0;  // of this rank's samples
};

class TrainingStep {
 public:
  // Goes on from `position`.
  TrainingStep(const Config& config, const RunPlan& plan, ModelState& state, Ranks ranks,
               const Position& position);
  // What it takes of the device's memory for communication, and of the host's.
  static std::uint64_t bytes(const RunPlan& plan);
  static std::uint64_t host_bytes();

  void request(Prefetch& prefetch, std::int64_t step) const { backward_.request(prefetch, step); }

  // Appends the next step: the entries of the plan's schedule. `stop`, `times`: see Backward::begin.
  void start(Prefetch& prefetch, double lr, const std::function<bool()>& stop = {},
             std::vector<StepTimes>* times = nullptr);
  // Steps that were started and not finished.
  std::size_t pending() const { return pending_.size(); }
  // Waits for the oldest step that was started, and advances `position`. When any rank failed to read its
  // data, all ranks throw its error.
  StepResult finish(Position& position);
  // Appends the wait for the parameters that are still being gathered: to be done before others read them.
  void settle() { update_.receive_all(); }

 private:
  struct Pending {
    std::size_t slot = 0;  // of outcomes_
    Event known;
    std::exception_ptr failure;
    double wait_data_ms = 0;
    std::int64_t merged_documents = 0;
    std::function<std::vector<double>()> waited_for_ranks;  // seconds
  };
  void append(const StepEntry& entry, double lr);
  void share(const entry::ShareReports& entry);
  void decide();
  std::span<LeafReport> my_reports() const;
  StepOutcome* outcome() const { return outcome_.as<StepOutcome>().data(); }

  const Config& config_;
  const RunPlan& plan_;
  Machine& machine_;
  Ranks ranks_;
  WaitClock waits_;
  Buffer reports_;   // a LeafReport of each leaf of all ranks
  Buffer outcome_;   // a StepOutcome, both in the device's memory
  Buffer outcomes_;  // copies of it for the host
  GradientExchange exchange_;
  Update update_;
  Backward backward_;
  GradientNorm norm_;
  std::vector<std::span<float>> sums_;  // by bucket: of the summed gradient what this rank updates by
  Event reported_;                      // the leaves of all ranks
  std::int64_t started_;                // steps
  std::deque<Pending> pending_;
};

}  // namespace muster
