#include "trainer/step/training_step.hpp"

#include <algorithm>
#include <cmath>

#include "comm/agree.hpp"

namespace muster {

TrainingStep::TrainingStep(const Config& config, const RunPlan& plan, ModelState& state, Communicator& comm,
                           Stream& stream, MemoryAccount& account)
    : config_(config),
      plan_(plan),
      comm_(comm),
      stream_(stream),
      exchange_(plan, state, comm, waits_, account),
      backward_(config, plan, state, exchange_, stream),
      reports_(plan),
      norm_(plan, account),
      update_(config, plan, state, comm, waits_),
      sums_(plan.buckets.size()) {}

StepResult TrainingStep::run(Prefetch& prefetch, Progress& progress, double lr, bool stop) {
  backward_.run(prefetch, progress.step);
  stream_.synchronize();
  LeafReports::Summary summary;
  waits_.during(
      [&] { summary = reports_.gather(comm_, backward_.leaves(), stop, backward_.failure() != nullptr); });
  for (const std::size_t bucket : backward_.order()) {
    sums_[bucket] = exchange_.finish(bucket, stream_);
    norm_.add(bucket, sums_[bucket], stream_);
  }
  double squared = 0;
  waits_.during([&] { squared = norm_.squared(comm_, stream_); });
  if (summary.failed) agree_on(comm_, "reading data", backward_.failure());

  StepResult result;
  result.targets = summary.targets;
  result.stop = summary.stop;
  result.wait_data_ms = backward_.wait_data_ms();
  if (summary.targets > 0) {
    const auto n = static_cast<double>(summary.targets);
    result.loss = summary.loss / n;
    result.grad_norm = std::sqrt(squared) / n;
  }
  result.skipped = summary.targets == 0 || !std::isfinite(result.loss) || !std::isfinite(result.grad_norm);
  result.clipped = !result.skipped && config_.optimizer.clip > 0 && result.grad_norm > config_.optimizer.clip;
  if (!result.skipped) update_.apply(rule(result, ++progress.updates, lr), sums_, stream_);
  ++progress.step;
  progress.targets += result.targets;
  stream_.synchronize();
  result.wait_comm_ms = waits_.take_ms();
  return result;
}

AdamW TrainingStep::rule(const StepResult& result, std::int64_t updates, double lr) const {
  const OptimizerConfig& optimizer = config_.optimizer;
  const double factor = optimizer.clip > 0 ? std::min(1.0, optimizer.clip / (result.grad_norm + 1e-6)) : 1.0;
  AdamW rule;
  rule.lr = static_cast<float>(lr);
  rule.beta1 = static_cast<float>(optimizer.betas[0]);
  rule.beta2 = static_cast<float>(optimizer.betas[1]);
  rule.epsilon = static_cast<float>(optimizer.epsilon);
  rule.correction1 = 1 - std::pow(optimizer.betas[0], static_cast<double>(updates));
  rule.correction2 = 1 - std::pow(optimizer.betas[1], static_cast<double>(updates));
  rule.gradient_scale = static_cast<float>(factor / static_cast<double>(result.targets));
  return rule;
}

}  // namespace muster
