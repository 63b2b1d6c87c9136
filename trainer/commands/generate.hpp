// muster generate: text that a run's model writes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/config/read.hpp"

namespace muster {

struct GenerateOptions {
  std::string run;
  std::optional<std::int64_t> checkpoint;  // step; the newest complete one if not given
  std::string prompt;
  std::int64_t tokens = 200;
  double temperature = 1;  // 0: always the likeliest token
  std::int64_t top_k = 0;  // 0: all
  double top_p = 1;        // 1: all
  std::int64_t seed = 1;
  std::vector<Override> overrides;
};

int generate_command(const GenerateOptions& options);

}  // namespace muster
