// What every rank tells all others at the end of a step's backward: the loss and target count of each of its
// leaves, whether it was asked to stop, and whether it failed to read its data. One small all_gather.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/communicator.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {

class LeafReports {
 public:
  struct Leaf {
    double loss = 0;  // sum over valid targets
    std::int64_t targets = 0;
  };
  struct Summary {
    double loss = 0;  // over the tree of leaves
    std::int64_t targets = 0;
    bool stop = false;
    bool failed = false;
  };

  explicit LeafReports(const RunPlan& plan);

  // What a rank that runs `leaves` tells each other rank.
  static std::uint64_t bytes(LeafRange leaves);

  // `leaves` are this rank's, in order.
  Summary gather(Communicator& comm, const std::vector<Leaf>& leaves, bool stop, bool failed);

 private:
  int rank_;
  std::vector<std::size_t> begin_;  // of each rank's report in bytes_, and the end
  std::vector<std::byte> bytes_;
};

}  // namespace muster
