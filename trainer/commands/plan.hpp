// muster plan: what a step will take, in memory, messages and arithmetic, and on a device that is named how long,
// before anything runs.
#pragma once

#include <string>
#include <vector>

#include "trainer/config/read.hpp"

namespace muster {

struct PlanOptions {
  std::string config;
  std::vector<Override> overrides;
  int ranks = 1;
  std::string on;          // "h100", ... or "cpu", this host: predict the step there
  int ranks_per_node = 0;  // 0: 8 GPUs; all ranks on this host
  bool steps = false;      // tell what a rank does in a step, in order
  bool json = false;
};

// Tells it if `tells`; other ranks only take part in measuring this host.
int plan_command(const PlanOptions& options, bool tells);

}  // namespace muster
