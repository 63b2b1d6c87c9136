#include "trainer/loop/step_report.hpp"

#include <fmt/format.h>
#include <numeric>

#include "trainer/machine/matrix_peak.hpp"
#include "trainer/schedule.hpp"

namespace muster {

StepReport::StepReport(const Config& config, const RunPlan& plan, double matrix_peak, const Attempt& attempt,
                       const DatasetInfo& data, MetricsFile& metrics, const Log& log, Pulse& pulse)
    : config_(config),
      plan_(plan),
      matrix_peak_(matrix_peak),
      attempt_(attempt),
      data_(data),
      metrics_(metrics),
      log_(log),
      pulse_(pulse) {}

StepRecord StepReport::record_of(const StepTold& told) const {
  const TrainConfig& train = config_.train;
  const StepResult& result = told.result;
  StepRecord record;
  record.step = told.step;
  record.attempt = attempt_.number();
  record.loss = result.loss;
  record.grad_norm = result.grad_norm;
  record.lr = learning_rate(config_.schedule, config_.optimizer.lr, train.steps, told.step);
  record.samples = told.step * train.batch;
  record.targets = result.targets;
  record.skipped = result.skipped;
  record.seconds = told.seconds;
  record.tokens_per_s = static_cast<double>(train.batch * train.sequence) / told.seconds;
  record.sol = speed_of_light(plan_.flops_per_step, matrix_peak_, plan_.ranks, told.seconds);
  record.wait_data_ms = result.wait_data_ms;
  record.wait_comm_ms = 1e3 * std::accumulate(result.waits.begin(), result.waits.end(), 0.0);
  if (told.evaluation) record.eval_loss = told.evaluation->loss;
  return record;
}

void StepReport::tell(const StepTold& told) {
  const Pulse::Work work = pulse_.writing("writing the metrics");
  record_ = record_of(told);
  attempt_.check_current();
  metrics_.append(record_);
  if (record_.targets == 0)
    log_.warn("step {} is skipped: its batch holds no target, each document in it is a single token",
              record_.step);
  const std::int64_t steps = config_.train.steps;
  log_.info(step_line(record_, steps, time_left_.after_step(record_.step, steps, told.seconds_in_all)));
  if (told.evaluation) tell(*told.evaluation);
}

void StepReport::add(const EvaluationResult& evaluation) {
  const Pulse::Work work = pulse_.writing("writing the metrics");
  record_.eval_loss = evaluation.loss;
  attempt_.check_current();
  metrics_.amend(record_);
  tell(evaluation);
}

void StepReport::tell(const EvaluationResult& evaluation) const {
  const auto bits = evaluation.bits_per_byte(data_, config_.model);
  log_.info("held out: loss {:.4f}, perplexity {:.2f}{}", evaluation.loss, evaluation.perplexity(),
            bits ? fmt::format(", {:.3f} bits per byte", *bits) : "");
}

}  // namespace muster
