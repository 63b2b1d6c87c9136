// Forward and backward of this rank's micro-batches, their reports and the sums of its gradient spaces: the entries of a
// step's schedule that need no other rank.
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
#include "trainer/step/model_state.hpp"

namespace muster {

class Backward {
 public:
  // `reports`, in the device's memory: one for each of this rank's leaves, in order.
  Backward(const Config& config, const RunPlan& plan, ModelState& state, std::span<LeafReport> reports,
           Pulse& pulse);

  // Asks for the micro-batches of a step, in the order in which its entries take them.
  void request(Prefetch& prefetch, std::int64_t step) const;

  // Before the entries of a step. `stop` tells this rank's wish to end, and is asked until the last micro-batch.
  // `times`, if given, gets those of all kernels of the plan. When reading data fails, the step goes through its motions
  // without them, so that the other ranks are not left waiting, and failure() tells what happened.
  void begin(Prefetch& prefetch, std::int64_t step, const std::function<bool()>& stop,
             std::vector<StepTimes>* times);
  void run(const entry::ClearReports&);
  void run(const entry::TakeBatch& entry);
  void run(const entry::RunKernels& entry);
  void run(const entry::Report& entry);
  void run(const entry::Add& entry);

  const std::exception_ptr& failure() const { return failure_; }
  double wait_data_ms() const { return wait_data_ms_; }
  // Of the last step, on this rank (data/loader.hpp).
  std::int64_t merged_documents() const { return merged_documents_; }

 private:
  void report(int leaf, const LeafReport& more, const double* loss);
  void append_report(LeafReport& to, const LeafReport& more, const double* loss, bool first);

  const Config& config_;
  const RunPlan& plan_;
  ModelState& state_;
  std::span<LeafReport> reports_;
  Pulse& pulse_;
  Stream& stream_;
  Executor executor_;

  // Of the step at hand.
  Prefetch* prefetch_ = nullptr;
  std::int64_t step_ = 0;
  std::function<bool()> stop_;
  std::vector<StepTimes>* times_ = nullptr;
  std::int64_t targets_ = 0;  // of the micro-batch at hand
  std::exception_ptr failure_;
  double wait_data_ms_ = 0;
  std::int64_t merged_documents_ = 0;
};

}  // namespace muster
