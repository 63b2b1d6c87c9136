#include "trainer/step/backward.hpp"

#include <algorithm>
#include <optional>

#include "core/error.hpp"
#include "model/ops/flat.hpp"
#include "trainer/step/inputs.hpp"

namespace muster {

Backward::Backward(const Config& config, const RunPlan& plan, ModelState& state, GradientExchange& exchange,
                   Update& update, std::span<LeafReport> reports, Pulse& pulse)
    : config_(config),
      plan_(plan),
      state_(state),
      exchange_(exchange),
      update_(update),
      reports_(reports),
      pulse_(pulse),
      stream_(state.machine.stream()),
      steps_(accumulation_steps(plan.division.leaves, plan.own_leaves().begin, plan.own_leaves().end)),
      cuts_(cuts_of_plan()),
      executor_(plan.training, state.machine.backend(), [this] {
        std::vector<std::size_t> places;
        for (std::size_t step = 0; step < cuts_.size(); ++step)
          if (!cuts_[step].receive.empty() || !cuts_[step].launch.empty()) places.push_back(step);
        return places;
      }()) {
  check(reports.size() == steps_.size(), "a report for each leaf");
}

std::vector<Backward::Cut> Backward::cuts_of_plan() {
  const Plan& plan = plan_.training;
  std::vector<std::vector<std::size_t>> buckets_of(plan.graph.parameters.size());
  std::vector<std::int64_t> missing(plan_.buckets.size());  // gradients that are not final yet
  std::vector<bool> received(plan_.buckets.size());
  for (std::size_t b = 0; b < plan_.buckets.size(); ++b)
    for (const Segment& segment : segments(plan_.parameters(), plan_.buckets[b].range)) {
      buckets_of[segment.parameter].push_back(b);
      ++missing[b];
    }
  std::vector<Cut> cuts(plan.steps.size() + 1);
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    for (const ValueId input : plan.node(plan.steps[s]).inputs) {
      if (!input || plan.graph[input].role != Role::parameter) continue;
      for (const std::size_t bucket : buckets_of[static_cast<std::size_t>(plan.graph[input].parameter)])
        if (!received[bucket]) {
          received[bucket] = true;
          cuts[s].receive.push_back(bucket);
        }
    }
    for (const std::int32_t parameter : plan.steps[s].final_gradients)
      for (const std::size_t bucket : buckets_of[static_cast<std::size_t>(parameter)])
        if (--missing[bucket] == 0) {
          cuts[s + 1].launch.push_back(bucket);
          order_.push_back(bucket);
        }
  }
  return cuts;
}

void Backward::request(Prefetch& prefetch, std::int64_t step) const {
  const Division& division = plan_.division;
  for (const LeafStep& leaf : steps_) {
    const LeafRange parts = division.micro_batches_of(leaf.leaf);
    for (int k = parts.begin; k < parts.end; ++k)
      prefetch.request(step * config_.train.batch + k * division.micro_batch, division.micro_batch);
  }
}

void Backward::run(Prefetch& prefetch, std::int64_t step, const std::function<bool()>& stop,
                   std::vector<StepTimes>* times) {
  const Division& division = plan_.division;
  failure_ = nullptr;
  wait_data_ms_ = 0;
  merged_documents_ = 0;
  for (std::size_t l = 0; l < steps_.size(); ++l) report(l, {}, nullptr, true);

  for (std::size_t l = 0; l < steps_.size() && !failure_; ++l) {
    const LeafStep& leaf = steps_[l];
    const bool last_leaf = l + 1 == steps_.size();
    const Bindings bindings = state_.bindings(static_cast<std::size_t>(leaf.buffer));
    const LeafRange parts = division.micro_batches_of(leaf.leaf);
    for (int k = parts.begin; k < parts.end && !failure_; ++k) {
      const std::int64_t slot = k * division.micro_batch;
      StepScalars scalars;
      scalars.seed = static_cast<std::uint64_t>(config_.run.seed);
      scalars.step = static_cast<std::uint32_t>(step);
      scalars.first_slot = static_cast<std::uint32_t>(slot);
      const bool first = l == 0 && k == parts.begin, last = last_leaf && k + 1 == parts.end;
      ExecutorOptions options;
      options.accumulate = k > parts.begin;
      if (first || last)
        options.at_cut = [&](std::size_t cut) {
          if (first) std::ranges::for_each(cuts_[cut].receive, [&](std::size_t b) { update_.receive(b); });
          if (last) std::ranges::for_each(cuts_[cut].launch, [&](std::size_t b) { launch(b); });
        };
      options.times = times;
      run_micro_batch(prefetch, bindings, scalars, l, stop, options);
    }
    // The last leaf's adds are made bucket by bucket, in launch().
    if (!last_leaf) add(leaf.adds, {0, plan_.parameters().elements()});
  }
  // The others wait for this rank's buckets even when it failed, which was before any could leave; the step
  // is thrown away then.
  if (failure_) std::ranges::for_each(order_, [&](std::size_t bucket) { launch(bucket); });
}

void Backward::run_micro_batch(Prefetch& prefetch, const Bindings& bindings, const StepScalars& scalars,
                               std::size_t leaf, const std::function<bool()>& stop,
                               const ExecutorOptions& options) {
  const Batch* batch = nullptr;
  try {
    // A batch may also wait for a GPU that has not read the one before it, and thereby for other ranks.
    std::optional<Pulse::Work> work;
    if (state_.machine.is_cpu() || plan_.ranks == 1)
      work.emplace(pulse_, Pulse::Task{Pulse::Kind::usual, "reading data"});
    batch = &prefetch.next();
  } catch (const UserError&) {
    failure_ = std::current_exception();
    report(leaf, {.failed = 1}, nullptr, false);
    return;
  }
  wait_data_ms_ += prefetch.waited_ms();
  merged_documents_ += batch->merged_documents;
  const std::int64_t targets = batch->valid_targets;
  fill_inputs(stream_, executor_, bindings, *batch, config_.data.documents);
  prefetch.give_back(stream_.record());

  executor_.run(stream_, bindings, scalars, options);
  report(leaf, {.targets = targets, .stop = stop && stop() ? 1u : 0u},
         executor_.view("loss", bindings).as<double>(), false);
}

void Backward::report(std::size_t leaf, const LeafReport& more, const double* loss, bool first) {
  stream_.enqueue([add_report = state_.machine.flat().add_report, more, loss, first,
                   to = &reports_[leaf]](NativeStream native) { add_report(native, more, loss, first, to); });
}

void Backward::add(const std::vector<Add>& adds, Range range) {
  const auto part = [&](int buffer) {
    return state_.gradients[static_cast<std::size_t>(buffer)].as<float>().subspan(
        static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
  };
  for (const Add& pair : adds)
    stream_.enqueue([sum = state_.machine.flat().add, left = part(pair.left),
                     right = part(pair.right)](NativeStream native) { sum(native, left, right); });
}

void Backward::launch(std::size_t bucket) {
  add(steps_.back().adds, plan_.buckets[bucket].range);
  exchange_.start(bucket, stream_.record());
}

}  // namespace muster
