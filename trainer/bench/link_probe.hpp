// Latency and bandwidth of what carries gradients and parameters among the ranks: of the reduction and of all_gather, a
// small one and one as large as a bucket, each alone. Samples between steps find the machine as the steps do.
#pragma once

#include <deque>

#include "trainer/bench/comm.hpp"
#include "trainer/plan/devices.hpp"

namespace muster {

// All of it is collective.
class LinkProbe {
 public:
  LinkProbe(Communicator& comm, Machine& machine);
  void sample();
  // Of the median samples; the same on all ranks.
  Link link() const;

 private:
  std::deque<CollectiveRow> small_, large_;  // the reduction, all_gather
};

}  // namespace muster
