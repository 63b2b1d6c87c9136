// Gradients meet: each rank sends every owner its piece of the roots that it has summed, and the owner adds
// the pieces of all roots in the order of the tree, so that the sum does not depend on who computed what.
//
// In fast mode, where the communicator sums by itself, it does so on the way.
//
// A bucket travels while backward goes on with the ones before it. Messages are direct, so a power-of-two
// number of ranks sends as much as a reduce-scatter would.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "core/memory.hpp"
#include "core/stream.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/wait_clock.hpp"

namespace muster {

class GradientExchange {
 public:
  GradientExchange(const RunPlan& plan, ModelState& state, Communicator& comm, WaitClock& waits);
  // Of staging memory, on the device.
  static std::uint64_t bytes(const RunPlan& plan);

  // Sends a bucket of this rank's roots once the stream has come to here.
  void start(const entry::Send& entry);

  // Appends to the stream what makes the sum of this rank's piece, and returns where it will lie.
  std::span<float> finish(std::size_t bucket);

 private:
  static std::int64_t foreign_roots(const RunPlan& plan);
  std::span<float> operand(std::size_t root, std::size_t bucket) const;

  const RunPlan& plan_;
  ModelState& state_;
  Communicator& comm_;
  WaitClock& waits_;
  Buffer staging_;
  std::vector<std::int64_t> staging_begin_;  // of each bucket, elements
  std::vector<int> index_in_rank_;           // of each root among its rank's roots
  std::vector<Add> adds_;
  std::vector<std::vector<Event>> arrived_;  // by bucket
};

}  // namespace muster
