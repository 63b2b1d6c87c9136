// muster eval: loss, perplexity and bits per byte of a run's checkpoint on held-out text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/config/read.hpp"

namespace muster {

struct EvaluateOptions {
  std::string run;
  std::optional<std::int64_t> checkpoint;  // step; the newest complete one if not given
  std::vector<Override> overrides;
};

int evaluate_command(const EvaluateOptions& options);

}  // namespace muster
