// muster plan: what a step will take, in memory, messages and arithmetic, before anything runs.
#pragma once

#include <string>
#include <vector>

#include "trainer/config/read.hpp"

namespace muster {

struct PlanOptions {
  std::string config;
  std::vector<Override> overrides;
  int ranks = 1;
  bool json = false;
};

int plan_command(const PlanOptions& options);

}  // namespace muster
