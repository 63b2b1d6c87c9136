#include "trainer/step/training_step.hpp"

#include <utility>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace muster {

TrainingStep::TrainingStep(const Config& config, const RunPlan& plan, ModelState& state, Ranks ranks,
                           const Position& position)
    : config_(config),
      plan_(plan),
      machine_(state.machine),
      ranks_(ranks),
      waits_(machine_.stream()),
      reports_(machine_.take(MemoryKind::communication,
                             static_cast<std::uint64_t>(plan.division.leaves) * sizeof(LeafReport))),
      outcome_(machine_.take(MemoryKind::communication, sizeof(StepOutcome))),
      outcomes_(machine_.take_staging(MemoryKind::communication, most_pending * sizeof(StepOutcome))),
      exchange_(plan, state, ranks.device, waits_),
      update_(config, plan, state, ranks.device, waits_),
      backward_(config, plan, state, exchange_, update_, my_reports(), ranks.host.pulse()),
      norm_(plan, machine_, ranks.device, waits_),
      sums_(plan.buckets.size()),
      started_(position.step) {
  StepOutcome& before = outcomes_.as<StepOutcome>()[0];
  before.updates = position.updates;
  machine_.stream().copy(outcome(), &before, sizeof(StepOutcome));
  machine_.stream().synchronize();
}

std::span<LeafReport> TrainingStep::my_reports() const {
  const LeafRange mine = plan_.own_leaves();
  return reports_.as<LeafReport>().subspan(static_cast<std::size_t>(mine.begin),
                                           static_cast<std::size_t>(mine.end - mine.begin));
}

void TrainingStep::start(Prefetch& prefetch, double lr, const std::function<bool()>& stop,
                         std::vector<StepTimes>* times) {
  check(pending_.size() < most_pending, "a step is started before too many others are finished");
  Stream& stream = machine_.stream();
  backward_.run(prefetch, started_, stop, times);

  Event reported;
  if (plan_.ranks > 1) {
    std::vector<std::span<std::byte>> pieces;
    for (const LeafRange& leaves : plan_.leaves)
      pieces.push_back(std::as_writable_bytes(reports_.as<LeafReport>().subspan(
          static_cast<std::size_t>(leaves.begin), static_cast<std::size_t>(leaves.end - leaves.begin))));
    reported = ranks_.device.all_gather(pieces, "losses and signals", stream.record());
  }
  for (const std::size_t bucket : backward_.order()) {
    sums_[bucket] = exchange_.finish(bucket);
    norm_.add(bucket, sums_[bucket]);
  }
  const std::span<double> squares = norm_.gather();
  waits_.during([&] { stream.wait(reported); });

  const OutcomeRule rule_of_outcome{config_.optimizer.clip, config_.optimizer.betas[0],
                                    config_.optimizer.betas[1]};
  const auto leaves = reports_.as<const LeafReport>().first(static_cast<std::size_t>(plan_.division.leaves));
  stream.enqueue(
      [finish_step = machine_.flat().finish_step, rule_of_outcome, leaves, squares,
       to = outcome()](NativeStream native) { finish_step(native, rule_of_outcome, leaves, squares, to); });
  update_.apply(rule(lr), outcome(), sums_);

  Pending pending;
  pending.slot = static_cast<std::size_t>(started_) % most_pending;
  stream.copy(&outcomes_.as<StepOutcome>()[pending.slot], outcome(), sizeof(StepOutcome));
  pending.known = stream.record();
  pending.failure = backward_.failure();
  pending.wait_data_ms = backward_.wait_data_ms();
  pending.merged_documents = backward_.merged_documents();
  pending.waited_for_ranks = waits_.take();
  pending_.push_back(std::move(pending));
  ++started_;
}

StepResult TrainingStep::finish(Position& position) {
  const Pending pending = std::move(pending_.front());
  pending_.pop_front();
  pending.known.wait();
  const StepOutcome outcome = outcomes_.as<StepOutcome>()[pending.slot];
  if (outcome.failed != 0) agree_on(ranks_.host, "reading data", pending.failure);

  ++position.step;
  position.updates = outcome.updates;
  position.targets += outcome.targets;
  StepResult result;
  result.loss = plain_nan(outcome.loss);
  result.grad_norm = plain_nan(outcome.grad_norm);
  result.targets = outcome.targets;
  result.skipped = outcome.skipped != 0;
  result.clipped = outcome.clipped != 0;
  result.stop = outcome.stop != 0;
  result.wait_data_ms = pending.wait_data_ms;
  result.merged_documents = pending.merged_documents;
  result.waits = pending.waited_for_ranks();
  return result;
}

AdamW TrainingStep::rule(double lr) const {
  const OptimizerConfig& optimizer = config_.optimizer;
  AdamW rule;
  rule.lr = static_cast<float>(lr);
  rule.beta1 = static_cast<float>(optimizer.betas[0]);
  rule.beta2 = static_cast<float>(optimizer.betas[1]);
  rule.epsilon = static_cast<float>(optimizer.epsilon);
  return rule;
}

}  // namespace muster
