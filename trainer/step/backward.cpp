#include "trainer/step/backward.hpp"

#include <optional>

#include "core/error.hpp"
#include "model/update/flat_kernels.hpp"
#include "trainer/step/inputs.hpp"

namespace muster {

Backward::Backward(const Config& config, const RunPlan& plan, ModelState& state,
                   std::span<LeafReport> reports, Pulse& pulse)
    : config_(config),
      plan_(plan),
      state_(state),
      reports_(reports),
      pulse_(pulse),
      stream_(state.machine.stream()),
      executor_(plan.training, state.machine.backend()) {
  check(std::ssize(reports) == plan.own_leaves().end - plan.own_leaves().begin, "a report for each leaf");
}

void Backward::request(Prefetch& prefetch, std::int64_t step) const {
  const std::int64_t size = plan_.division.micro_batch;
  for (const StepEntry& entry : plan_.schedule.entries)
    if (const auto* take = std::get_if<entry::TakeBatch>(&entry))
      prefetch.request(step * config_.train.batch + take->micro_batch * size);
}

void Backward::begin(Prefetch& prefetch, std::int64_t step, const std::function<bool()>& stop,
                     std::vector<StepTimes>* times) {
  prefetch_ = &prefetch;
  step_ = step;
  stop_ = stop;
  times_ = times;
  failure_ = nullptr;
  wait_data_ms_ = 0;
  merged_documents_ = 0;
}

void Backward::run(const entry::ClearReports&) {
  for (LeafReport& report : reports_) append_report(report, {}, nullptr, true);
}

void Backward::run(const entry::TakeBatch& entry) {
  if (failure_) return;
  const Batch* batch = nullptr;
  try {
    // A batch may also wait for a GPU that has not read the one before it, and thereby for other ranks.
    std::optional<Pulse::Work> work;
    if (state_.machine.is_cpu() || plan_.ranks == 1)
      work.emplace(pulse_, Pulse::Task{Pulse::Kind::usual, "reading data"});
    batch = &prefetch_->next();
  } catch (const UserError&) {
    failure_ = std::current_exception();
    report(entry.leaf, {.failed = 1}, nullptr);
    return;
  }
  wait_data_ms_ += prefetch_->waited_ms();
  merged_documents_ += batch->merged_documents;
  targets_ = batch->valid_targets;
  const Bindings bindings = state_.inference();
  fill_inputs(stream_, executor_, bindings, *batch);
  prefetch_->give_back(stream_.record());
  StepScalars scalars;
  scalars.seed = static_cast<std::uint64_t>(config_.run.seed);
  scalars.step = static_cast<std::uint32_t>(step_);
  scalars.first_slot = static_cast<std::uint32_t>(entry.micro_batch * plan_.division.micro_batch);
  executor_.set(stream_, bindings, scalars);
}

void Backward::run(const entry::RunKernels& entry) {
  if (failure_) return;
  executor_.run(stream_, state_.bindings(static_cast<std::size_t>(entry.space)), entry.begin, entry.end,
                {.accumulate = entry.accumulate, .times = times_});
}

void Backward::run(const entry::Report& entry) {
  if (failure_) return;
  report(entry.leaf, {.targets = targets_, .stop = stop_ && stop_() ? 1u : 0u},
         executor_.view("loss", state_.inference()).as<double>());
}

void Backward::run(const entry::Add& entry) {
  const Range range =
      entry.bucket ? plan_.buckets[*entry.bucket].range : Range{0, plan_.parameters().elements()};
  const auto part = [&](int space) {
    return state_.gradients[static_cast<std::size_t>(space)].as<float>().subspan(
        static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
  };
  stream_.enqueue([sum = state_.machine.flat().add, left = part(entry.left),
                   right = part(entry.right)](NativeStream native) { sum(native, left, right); });
}

void Backward::report(int leaf, const LeafReport& more, const double* loss) {
  append_report(reports_[static_cast<std::size_t>(leaf - plan_.own_leaves().begin)], more, loss, false);
}

void Backward::append_report(LeafReport& to, const LeafReport& more, const double* loss, bool first) {
  stream_.enqueue([add_report = state_.machine.flat().add_report, more, loss, first,
                   &to](NativeStream native) { add_report(native, more, loss, first, &to); });
}

}  // namespace muster
