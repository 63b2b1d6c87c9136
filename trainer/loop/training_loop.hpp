// The loop of a run that has been started: steps, and between them what is due (duties.hpp), until the last step or until
// some rank is asked to stop.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "data/prefetch.hpp"
#include "trainer/config/config.hpp"
#include "trainer/evaluate/evaluation.hpp"
#include "trainer/loop/duties.hpp"
#include "trainer/loop/run_host.hpp"
#include "trainer/loop/saver.hpp"
#include "trainer/loop/skipped_steps.hpp"
#include "trainer/loop/step_report.hpp"
#include "trainer/loop/step_trace.hpp"
#include "trainer/loop/step_traffic.hpp"
#include "trainer/loop/steps_ahead.hpp"
#include "trainer/metrics/log.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/position.hpp"
#include "trainer/step/training_step.hpp"

namespace muster {

// What the loop works with, all of which outlives it.
struct LoopParts {
  const RunHost& host;
  const TimeLimit& limit;
  const Config& config;
  const RunPlan& plan;
  ModelState& state;
  TrainingStep& step;
  Prefetch& prefetch;
  Evaluation* evaluation;  // where there is one
  StepTrace* trace;        // where a step is to be traced
  Saver& saver;
  StepReport* report;  // of rank 0; of the others none
  const Log& log;
};

// What this process has done.
struct LoopResult {
  Position position;
  std::int64_t steps_taken = 0;
  std::uint64_t sent = 0;             // bytes, in these steps
  std::int64_t merged_documents = 0;  // of this rank's samples
  SkippedSteps skipped = {};
  EvaluationResult evaluation = {};  // the last; targets = 0: there was none
};

class TrainingLoop {
 public:
  // Goes on from `position`, which is that of a checkpoint, or the first.
  TrainingLoop(const LoopParts& parts, const Position& position);
  TrainingLoop(const TrainingLoop&) = delete;
  TrainingLoop& operator=(const TrainingLoop&) = delete;

  // Collective.
  LoopResult run();

 private:
  void begin();
  void start_steps();
  void end_step();
  void perform(Duty duty, StepEnd& end);
  void settle();
  void trace();
  void save();
  void evaluate(StepEnd& end);
  void record(const StepEnd& end);

  Communicator& comm() const { return parts_.host.ranks.host; }
  bool speaks() const { return parts_.host.speaks(); }
  // Of this rank.
  bool wants_to_stop(std::int64_t step) const;
  bool any_rank(bool wish, const char* what) const;
  void tell_unsaved() const { parts_.host.unsaved(result_.position.step - saved_step_); }

  using Clock = std::chrono::steady_clock;

  LoopParts parts_;
  Rhythm rhythm_;
  LoopResult result_;
  StepsAhead steps_;
  StepTraffic traffic_;
  std::int64_t saved_step_;
  bool asked_ = false;                         // to stop, some rank
  StepsAhead::Finished finished_;              // the step that has just ended
  std::optional<EvaluationResult> evaluated_;  // behind it
  Clock::time_point recorded_;                 // the step before it
};

}  // namespace muster
