// muster prepare: text, JSON lines or tokens into a dataset.
#pragma once

#include <string>
#include <vector>

#include "data/prepare.hpp"

namespace muster {

struct PrepareCommandOptions {
  std::vector<std::string> inputs;
  std::string output;
  PrepareOptions prepare;
};

int prepare_command(const PrepareCommandOptions& options);

}  // namespace muster
