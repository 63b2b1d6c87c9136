// The norm of the whole gradient: sums of squares of blocks of 4,096 elements in f64, each computed by the
// block's owner, to be summed over a fixed tree over all blocks, so that the bits do not depend on the number
// of ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "core/memory.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/machine.hpp"
#include "trainer/step/wait_clock.hpp"

namespace muster {

class GradientNorm {
 public:
  GradientNorm(const RunPlan& plan, Machine& machine, Communicator& comm, WaitClock& waits);

  static std::uint64_t bytes(const RunPlan& plan);

  // Appends the squares of this rank's piece of a bucket.
  void add(std::size_t bucket, std::span<const float> piece);
  // Exchanges those that were added, and appends the wait for all.
  void share(const entry::ShareSquares& entry);
  // Where they stand, in the order of the flat space.
  std::span<double> squares() const { return squares_.as<double>(); }

 private:
  const RunPlan& plan_;
  Machine& machine_;
  Communicator& comm_;
  WaitClock& waits_;
  Buffer squares_;                                         // f64, by block
  std::vector<std::vector<std::span<std::byte>>> pieces_;  // of buckets that were added, by rank
};

}  // namespace muster
