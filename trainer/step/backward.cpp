#include "trainer/step/backward.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "model/ops/flat.hpp"
#include "trainer/step/inputs.hpp"

namespace muster {

Backward::Backward(const Config& config, const RunPlan& plan, ModelState& state, GradientExchange& exchange,
                   Stream& stream)
    : config_(config),
      plan_(plan),
      state_(state),
      exchange_(exchange),
      stream_(stream),
      executor_(plan.training),
      buckets_of_(plan.training.graph.parameters.size()),
      parameters_in_(plan.buckets.size()) {
  const LeafRange mine = plan.leaves[static_cast<std::size_t>(plan.rank)];
  steps_ = accumulation_steps(plan.division.leaves, mine.begin, mine.end);
  for (std::size_t b = 0; b < plan.buckets.size(); ++b)
    for (const Segment& segment : segments(plan.training.graph, plan.training.space, plan.buckets[b].range)) {
      buckets_of_[segment.parameter].push_back(b);
      ++parameters_in_[b];
    }
  missing_ = parameters_in_;
  for (const PlanStep& step : plan.training.steps)
    count_final(step.final_gradients, [&](std::size_t bucket) { order_.push_back(bucket); });
}

void Backward::request(Prefetch& prefetch, std::int64_t step) const {
  const Division& division = plan_.division;
  for (const LeafStep& leaf : steps_)
    for (std::int64_t k = 0; k < division.micro_batches_per_leaf(); ++k)
      prefetch.request(
          step * config_.train.batch + leaf.leaf * division.samples_per_leaf + k * division.micro_batch,
          division.micro_batch);
}

void Backward::run(Prefetch& prefetch, std::int64_t step) {
  const Division& division = plan_.division;
  failure_ = nullptr;
  wait_data_ms_ = 0;
  missing_ = parameters_in_;
  reports_.assign(steps_.size(), {});

  const Executor::GradientsFinal launch_final = [&](std::span<const std::int32_t> parameters) {
    count_final(parameters, [&](std::size_t bucket) { launch(bucket); });
  };
  for (std::size_t l = 0; l < steps_.size() && !failure_; ++l) {
    const LeafStep& leaf = steps_[l];
    const bool last_leaf = l + 1 == steps_.size();
    const Bindings bindings = state_.bindings(static_cast<std::size_t>(leaf.buffer));
    for (std::int64_t k = 0; k < division.micro_batches_per_leaf() && !failure_; ++k) {
      const std::int64_t slot = leaf.leaf * division.samples_per_leaf + k * division.micro_batch;
      StepScalars scalars;
      scalars.seed = static_cast<std::uint64_t>(config_.run.seed);
      scalars.step = static_cast<std::uint32_t>(step);
      scalars.first_slot = static_cast<std::uint32_t>(slot);
      scalars.first_micro_batch = k == 0;
      const bool last = last_leaf && k + 1 == division.micro_batches_per_leaf();
      run_micro_batch(prefetch, bindings, scalars, reports_[l],
                      last ? launch_final : Executor::GradientsFinal());
    }
    // The last leaf's adds are made bucket by bucket, in launch().
    if (!last_leaf) add(leaf.adds, {0, plan_.training.space.elements});
  }
  // The others wait for this rank's buckets even when it failed, which was before any could leave; the step
  // is thrown away then.
  if (failure_) std::ranges::for_each(order_, [&](std::size_t bucket) { launch(bucket); });
}

void Backward::count_final(std::span<const std::int32_t> parameters,
                           const std::function<void(std::size_t bucket)>& complete) {
  for (const std::int32_t parameter : parameters)
    for (const std::size_t bucket : buckets_of_[static_cast<std::size_t>(parameter)])
      if (--missing_[bucket] == 0) complete(bucket);
}

void Backward::run_micro_batch(Prefetch& prefetch, const Bindings& bindings, const StepScalars& scalars,
                               LeafReports::Leaf& report, const Executor::GradientsFinal& gradients_final) {
  const Batch* batch = nullptr;
  try {
    batch = &prefetch.next();
  } catch (const UserError&) {
    failure_ = std::current_exception();
    return;
  }
  wait_data_ms_ += prefetch.waited_ms();
  fill_inputs(stream_, executor_, bindings, *batch, config_.data.documents);
  report.targets += batch->valid_targets;
  const Event copied = stream_.record();

  executor_.run(stream_, bindings, scalars, gradients_final);
  stream_.enqueue([&report, loss = executor_.view("loss", bindings)] { report.loss += *loss.as<double>(); });
  copied.wait();  // the prefetch takes the batch back at the next next()
}

void Backward::add(const std::vector<Add>& adds, Range range) {
  const auto part = [&](int buffer) {
    return state_.gradients[static_cast<std::size_t>(buffer)].as<float>().subspan(
        static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
  };
  for (const Add& pair : adds)
    stream_.enqueue(
        [left = part(pair.left), right = part(pair.right)] { cpu_flat_kernels().add(left, right); });
}

void Backward::launch(std::size_t bucket) {
  add(steps_.back().adds, plan_.buckets[bucket].range);
  exchange_.start(bucket, stream_.record());
}

}  // namespace muster
