// What a step is told by: a line of metrics.jsonl, and one on the screen. On rank 0 alone.
#pragma once

#include <cstdint>
#include <optional>

#include "core/pulse.hpp"
#include "data/dataset.hpp"
#include "trainer/config/config.hpp"
#include "trainer/evaluate/evaluation.hpp"
#include "trainer/metrics/log.hpp"
#include "trainer/metrics/metrics_file.hpp"
#include "trainer/metrics/step_line.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/run_folder.hpp"
#include "trainer/step/training_step.hpp"

namespace muster {

// What is to be told of a step.
struct StepTold {
  std::int64_t step = 0;
  const StepResult& result;
  double seconds = 0;                          // of the step
  double seconds_in_all = 0;                   // since the step before was told
  std::optional<EvaluationResult> evaluation;  // behind it
};

class StepReport {
 public:
  // All outlive it. `matrix_peak` is that of a rank (matrix_peak.hpp); `data` are those that are held out.
  StepReport(const Config& config, const RunPlan& plan, double matrix_peak, const Attempt& attempt,
             const DatasetInfo& data, MetricsFile& metrics, const Log& log, Pulse& pulse);

  // Throws UserError when a newer attempt has taken the run over.
  void tell(const StepTold& told);
  // The same of an evaluation behind the step that was told last.
  void add(const EvaluationResult& evaluation);

 private:
  StepRecord record_of(const StepTold& told) const;
  void tell(const EvaluationResult& evaluation) const;

  const Config& config_;
  const RunPlan& plan_;
  double matrix_peak_;
  const Attempt& attempt_;
  const DatasetInfo& data_;
  MetricsFile& metrics_;
  const Log& log_;
  Pulse& pulse_;
  TimeLeft time_left_;
  StepRecord record_;  // the last
};

}  // namespace muster
