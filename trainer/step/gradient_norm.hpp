// The norm of the whole gradient: sums of squares of blocks of 4,096 elements in f64, each computed by the
// block's owner, then summed over a fixed tree over all blocks, so that the bits do not depend on the number
// of ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "core/memory.hpp"
#include "core/stream.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {

class GradientNorm {
 public:
  GradientNorm(const RunPlan& plan, MemoryAccount& account);

  // Appends the squares of this rank's piece of a bucket.
  void add(std::size_t bucket, std::span<const float> piece, Stream& stream);
  // Collective, after all buckets were added: the sum of squares of the whole gradient.
  double squared(Communicator& comm, Stream& stream);

 private:
  std::span<double> packed(int rank, std::size_t bucket) const;

  const RunPlan& plan_;
  std::vector<std::vector<std::size_t>> begin_;  // by rank and bucket, and each rank's end: places in packed_
  Buffer packed_;                                // f64, by owner
  Buffer ordered_;                               // f64, in the order of the flat space
};

}  // namespace muster
