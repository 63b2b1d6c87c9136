#include "trainer/step/training_step.hpp"

#include <utility>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace muster {
namespace {

std::uint64_t reports_bytes(const RunPlan& plan) {
  return static_cast<std::uint64_t>(plan.division.leaves) * sizeof(LeafReport);
}

}  // namespace

TrainingStep::TrainingStep(const Config& config, const RunPlan& plan, ModelState& state, Ranks ranks,
                           const Position& position)
    : config_(config),
      plan_(plan),
      machine_(state.machine),
      ranks_(ranks),
      waits_(machine_.stream()),
      reports_(machine_.take(MemoryKind::communication, reports_bytes(plan))),
      outcome_(machine_.take(MemoryKind::communication, sizeof(StepOutcome))),
      outcomes_(machine_.take_staging(MemoryKind::communication, host_bytes())),
      exchange_(plan, state, ranks.device, waits_),
      update_(plan, state, ranks.device, waits_),
      backward_(config, plan, state, my_reports(), ranks.host.pulse()),
      norm_(plan, machine_, ranks.device, waits_),
      sums_(plan.buckets.size()),
      started_(position.step) {
  StepOutcome& before = outcomes_.as<StepOutcome>()[0];
  before.updates = position.updates;
  machine_.stream().copy(outcome(), &before, sizeof(StepOutcome));
  machine_.stream().synchronize();
}

std::uint64_t TrainingStep::bytes(const RunPlan& plan) {
  return Buffer::counted(reports_bytes(plan)) + Buffer::counted(sizeof(StepOutcome)) +
         GradientExchange::bytes(plan) + GradientNorm::bytes(plan);
}

std::uint64_t TrainingStep::host_bytes() { return Buffer::counted(most_pending * sizeof(StepOutcome)); }

std::span<LeafReport> TrainingStep::my_reports() const {
  const LeafRange mine = plan_.own_leaves();
  return reports_.as<LeafReport>().subspan(static_cast<std::size_t>(mine.begin),
                                           static_cast<std::size_t>(mine.end - mine.begin));
}

void TrainingStep::start(Prefetch& prefetch, double lr, const std::function<bool()>& stop,
                         std::vector<StepTimes>* times) {
  check(pending_.size() < most_pending, "a step is started before too many others are finished");
  backward_.begin(prefetch, started_, stop, times);
  for (const StepEntry& entry : plan_.schedule.entries) append(entry, lr);

  Pending pending;
  pending.slot = static_cast<std::size_t>(started_) % most_pending;
  Stream& stream = machine_.stream();
  stream.copy(&outcomes_.as<StepOutcome>()[pending.slot], outcome(), sizeof(StepOutcome));
  pending.known = stream.record();
  pending.failure = backward_.failure();
  pending.wait_data_ms = backward_.wait_data_ms();
  pending.merged_documents = backward_.merged_documents();
  pending.waited_for_ranks = waits_.take();
  pending_.push_back(std::move(pending));
  ++started_;
}

void TrainingStep::append(const StepEntry& entry, double lr) {
  const auto named = machine_.stream().name_work([&] { return name_of(entry); });
  std::visit(Overloaded{
                 [&](const entry::Receive& e) { update_.receive(e.bucket); },
                 [&](const entry::Send& e) { exchange_.start(e); },
                 [&](const entry::ShareReports& e) { share(e); },
                 [&](const entry::FinishSum& e) { sums_[e.bucket] = exchange_.finish(e.bucket); },
                 [&](const entry::Squares& e) { norm_.add(e.bucket, sums_[e.bucket]); },
                 [&](const entry::ShareSquares& e) { norm_.share(e); },
                 [&](const entry::Decide&) { decide(); },
                 [&](const entry::ShareGradients& e) { sums_[e.bucket] = update_.share(e, sums_[e.bucket]); },
                 [&](const entry::Update& e) { update_.apply(e, lr, outcome(), sums_[e.bucket]); },
                 [&](const entry::Gather& e) { update_.gather(e); },
                 [&](const auto& of_this_rank) { backward_.run(of_this_rank); },
             },
             entry);
}

void TrainingStep::share(const entry::ShareReports& entry) {
  std::vector<std::span<std::byte>> pieces;
  for (const LeafRange& leaves : plan_.leaves)
    pieces.push_back(std::as_writable_bytes(reports_.as<LeafReport>().subspan(
        static_cast<std::size_t>(leaves.begin), static_cast<std::size_t>(leaves.end - leaves.begin))));
  reported_ = ranks_.device.all_gather(pieces, name_of(entry), machine_.stream().record());
}

void TrainingStep::decide() {
  waits_.during([&] { machine_.stream().wait(reported_); });
  const OutcomeRule rule{config_.optimizer.clip, plan_.optimizer->averages()};
  const auto leaves = reports_.as<const LeafReport>().first(static_cast<std::size_t>(plan_.division.leaves));
  machine_.stream().enqueue(
      [finish_step = machine_.flat().finish_step, rule, leaves, squares = norm_.squares(),
       to = outcome()](NativeStream native) { finish_step(native, rule, leaves, squares, to); });
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

}  // namespace muster
