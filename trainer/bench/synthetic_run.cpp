#include "trainer/bench/synthetic_run.hpp"

#include <algorithm>
#include <utility>

#include "comm/agree.hpp"
#include "trainer/failure.hpp"
#include "trainer/run/fitting_plan.hpp"

namespace muster {
namespace {

// Any tokens, each sample a document.
void fill(const Config& config, std::int64_t first_slot, std::int64_t count, Batch& batch) {
  const std::int64_t length = config.train.sequence;
  const std::span<std::int32_t> tokens = batch.i32("tokens"), targets = batch.i32("targets"),
                                positions = batch.i32("positions");
  const auto token = [&](std::int64_t at) {
    return static_cast<std::int32_t>((first_slot * length + at) * 2654435761u %
                                     static_cast<std::uint64_t>(config.model.vocabulary));
  };
  for (std::int64_t at = 0; at < count * length; ++at) {
    const auto i = static_cast<std::size_t>(at);
    tokens[i] = token(at);
    targets[i] = token(at + 1);
    positions[i] = static_cast<std::int32_t>(at % length);
  }
  if (batch.has("document_starts")) {
    const std::span<std::int32_t> starts = batch.i32("document_starts");
    std::ranges::fill(starts, static_cast<std::int32_t>(count * length));
    for (std::int64_t s = 0; s < count; ++s)
      starts[static_cast<std::size_t>(s)] = static_cast<std::int32_t>(s * length);
  }
  batch.samples = count;
  batch.valid_targets = count * length;
  batch.merged_documents = 0;
}

}  // namespace

SyntheticRun::SyntheticRun(const Config& config, Ranks ranks, Machine& machine)
    : config_(config),
      machine_(machine),
      plan_(fitting_plan(config_, ranks, machine,
                         Prefetch::memory(micro_batch_fields(config_), prefetch_depth))),
      prefetch_(
          micro_batch_fields(config_),
          [this, model = std::shared_ptr<const Model>(make_model(config_.model))](
              std::int64_t slot, std::int64_t count, Batch& batch) {
            fill(config_, slot, count, batch);
            model->derive(batch, {slot, count, static_cast<std::uint64_t>(config_.run.seed)});
          },
          machine.host_account(), prefetch_depth, config_.train.micro_batch, machine.device().staging()),
      state_(agree(ranks.host, "taking memory", [&] { return ModelState(plan_, config_, machine_); })),
      comm_(ranks.host),
      watchdog_(comm_, config_.run.watchdog),
      step_(config_, plan_, state_, ranks, position_),
      steps_(step_, prefetch_, position_, machine.is_cpu()) {
  if (ranks.devices_apart()) device_watchdog_.emplace(ranks.device, config_.run.watchdog);
  state_.initialise(plan_, static_cast<std::uint64_t>(config_.run.seed));
  state_.refresh_compute({0, plan_.parameters().elements()});
}

std::vector<StepSample> SyntheticRun::run(int steps) {
  return ending_job_when_alone(comm_, [&] { return take_steps(steps); });
}

SyntheticRun::Timed SyntheticRun::run_timed() {
  return ending_job_when_alone(comm_, [&] { return take_timed_step(); });
}

std::vector<StepSample> SyntheticRun::take_steps(int steps) {
  const std::int64_t last = steps_.started() + steps;
  std::vector<StepSample> samples;
  while (static_cast<int>(samples.size()) < steps) {
    steps_.start([&](std::int64_t) { return StepOrder{config_.optimizer.lr}; },
                 [&](std::int64_t step) { return step == last; });
    StepsAhead::Finished finished = steps_.finish();
    samples.push_back({finished.seconds, std::move(finished.result.waits)});
  }
  return samples;
}

SyntheticRun::Timed SyntheticRun::take_timed_step() {
  Timed timed;
  std::vector<StepTimes> times;
  steps_.start(
      [&](std::int64_t) {
        return StepOrder{config_.optimizer.lr, {}, &times};
      },
      [](std::int64_t) { return true; });
  StepsAhead::Finished finished = steps_.finish();
  timed.step = {finished.seconds, std::move(finished.result.waits)};
  machine_.stream().synchronize();
  timed.plan_seconds.resize(plan_.training.steps.size());
  for (const StepTimes& time : times) timed.plan_seconds[time.step] = time.end() - time.begin();
  return timed;
}

}  // namespace muster
