// muster bench: how fast the ops, the step and the collectives are, and how they scale with the ranks.
#pragma once

#include <string>
#include <vector>

#include "trainer/config/read.hpp"

namespace muster {

struct BenchOptions {
  std::string config;
  std::vector<Override> overrides;
  bool json = false;
};

struct BenchStepOptions : BenchOptions {
  int steps = 5;
};

struct BenchScalingOptions : BenchStepOptions {
  std::string output;
};

int bench_ops_command(const BenchOptions& options);
int bench_step_command(const BenchStepOptions& options);
// Needs no configuration; run.device and run.threads may be set.
int bench_comm_command(const BenchOptions& options);
int bench_scaling_command(const BenchScalingOptions& options);

}  // namespace muster
