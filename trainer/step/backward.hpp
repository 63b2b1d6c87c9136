// Forward and backward of this rank's leaves. Each bucket of parameters is received just before forward first
// uses it; each bucket of gradients leaves as soon as backward has finished it.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <vector>

#include "core/pulse.hpp"
#include "core/stream.hpp"
#include "data/prefetch.hpp"
#include "model/executor.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/gradient_exchange.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/update.hpp"

namespace muster {

class Backward {
 public:
  // `reports`, in the device's memory: one for each of this rank's leaves, in order.
  Backward(const Config& config, const RunPlan& plan, ModelState& state, GradientExchange& exchange,
           Update& update, std::span<LeafReport> reports, Pulse& pulse);

  // Asks for the micro-batches of a step, in the order in which run() takes them.
  void request(Prefetch& prefetch, std::int64_t step) const;

  // Appends the leaves of a step and their reports; `stop` tells this rank's wish to end, and is asked until the last
  // micro-batch. When reading data fails the step goes through its motions, so that the other ranks are not left waiting, and failure()
  // tells what happened. `times`, if given, gets those of all kernels of the plan.
  void run(Prefetch& prefetch, std::int64_t step, const std::function<bool()>& stop,
           std::vector<StepTimes>* times = nullptr);

  const std::exception_ptr& failure() const { return failure_; }
  double wait_data_ms() const { return wait_data_ms_; }
  // Of the last step, on this rank (data/loader.hpp).
  std::int64_t merged_documents() const { return merged_documents_; }
  // Buckets in the order in which they leave, the same in every step and on every rank.
  const std::vector<std::size_t>& order() const { return order_; }

 private:
  // What there is to do for the host before a step of the plan.
  struct Cut {
    std::vector<std::size_t> receive;  // buckets of parameters first used after it
    std::vector<std::size_t> launch;   // buckets of gradients finished before it
  };
  std::vector<Cut> cuts_of_plan();
  void run_micro_batch(Prefetch& prefetch, const Bindings& bindings, const StepScalars& scalars,
                       std::size_t leaf, const std::function<bool()>& stop, const ExecutorOptions& options);
  void report(std::size_t leaf, const LeafReport& more, const double* loss, bool first);
  void add(const std::vector<Add>& adds, Range range);
  void launch(std::size_t bucket);

  const Config& config_;
  const RunPlan& plan_;
  ModelState& state_;
  GradientExchange& exchange_;
  Update& update_;
  std::span<LeafReport> reports_;
  Pulse& pulse_;
  Stream& stream_;
  std::vector<LeafStep> steps_;
  std::vector<std::size_t> order_;
  std::vector<Cut> cuts_;  // by step of the plan, and one for its end
  Executor executor_;
  std::exception_ptr failure_;
  double wait_data_ms_ = 0;
  std::int64_t merged_documents_ = 0;
};

}  // namespace muster
