// Forward and backward of this rank's leaves; each bucket of gradients leaves as soon as backward has
// finished it.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <vector>

#include "core/stream.hpp"
#include "data/prefetch.hpp"
#include "model/executor.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/gradient_exchange.hpp"
#include "trainer/step/leaf_reports.hpp"
#include "trainer/step/model_state.hpp"

namespace muster {

class Backward {
 public:
  Backward(const Config& config, const RunPlan& plan, ModelState& state, GradientExchange& exchange,
           Stream& stream);

  // Asks for the micro-batches of a step, in the order in which run() takes them.
  void request(Prefetch& prefetch, std::int64_t step) const;

  // Runs the leaves of a step. When reading data fails the step goes through its motions, so that the other
  // ranks are not left waiting, and failure() tells what happened.
  void run(Prefetch& prefetch, std::int64_t step);

  const std::vector<LeafReports::Leaf>& leaves() const { return reports_; }
  const std::exception_ptr& failure() const { return failure_; }
  double wait_data_ms() const { return wait_data_ms_; }
  // Buckets in the order in which they leave, the same in every step and on every rank.
  const std::vector<std::size_t>& order() const { return order_; }

 private:
  void run_micro_batch(Prefetch& prefetch, const Bindings& bindings, const StepScalars& scalars,
                       LeafReports::Leaf& report, const Executor::GradientsFinal& gradients_final);
  // Calls complete(bucket) for the buckets that lacked nothing but these gradients.
  void count_final(std::span<const std::int32_t> parameters,
                   const std::function<void(std::size_t bucket)>& complete);
  void add(const std::vector<Add>& adds, Range range);
  void launch(std::size_t bucket);

  const Config& config_;
  const RunPlan& plan_;
  ModelState& state_;
  GradientExchange& exchange_;
  Stream& stream_;
  Executor executor_;
  std::vector<LeafStep> steps_;
  std::vector<std::vector<std::size_t>> buckets_of_;  // by parameter
  std::vector<std::int64_t> parameters_in_;           // by bucket
  std::vector<std::int64_t> missing_;  // by bucket: gradients of this step that are not final yet
  std::vector<std::size_t> order_;
  std::vector<LeafReports::Leaf> reports_;
  std::exception_ptr failure_;
  double wait_data_ms_ = 0;
};

}  // namespace muster
