// muster train: train a model as its configuration says, or go on with a run.
#pragma once

#include <string>
#include <vector>

#include "trainer/config/read.hpp"

namespace muster {

struct TrainOptions {
  std::string config;  // a file, or the folder of a run
  std::vector<Override> overrides;
  std::string trace;  // "step=N": write a trace of this step into the run's folder; empty: none
};

int train_command(const TrainOptions& options);

}  // namespace muster
