// What a step knows of itself before it updates: what its leaves report, and what comes of that.
#pragma once

#include <array>
#include <cstdint>

namespace muster {

// What a leaf of the reduction tree tells all ranks.
struct LeafReport {
  double loss = 0;           // sum over its valid targets
  std::int64_t targets = 0;  // how many these are
  std::uint32_t stop = 0;    // its rank was asked to stop
  std::uint32_t failed = 0;  // its rank could not read its data
};

// What all ranks know of a step before they update; it stays in the device's memory from step to step.
//   loss = (sum of the leaves' losses) / N,  norm = ||gradient of the sum|| / N,  N = sum of targets
//   gradient_scale = min(1, clip / (norm + 1e-6)) / N
// The update is skipped when N = 0, a leaf failed, or the loss or the norm is not finite.
struct StepOutcome {
  double loss = 0;
  double grad_norm = 0;
  std::int64_t targets = 0;  // N
  // Steps that were not skipped, this one included, since the run began: carried from step to step.
  std::int64_t updates = 0;
  double correction1 = 1, correction2 = 1;  // 1 - average^updates, of each of OutcomeRule::averages
  float gradient_scale = 1;
  std::uint32_t skipped = 0, clipped = 0;
  std::uint32_t stop = 0, failed = 0;  // of any leaf
};

struct OutcomeRule {
  double clip = 0;                          // 0: none
  std::array<double, 2> averages = {0, 0};  // Optimizer::averages
};

}  // namespace muster
