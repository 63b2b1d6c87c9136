// Where a run stands; what a checkpoint keeps of it.
#pragma once

#include <cstdint>

namespace muster {

struct Position {
  std::int64_t step = 0;     // steps taken; samples consumed are step x batch
  std::int64_t updates = 0;  // of the optimizer: steps that were not skipped
  std::int64_t targets = 0;  // valid targets seen
};

}  // namespace muster
