// The learning rate of a step: a linear warm-up, then constant, cosine or linear.
//
// Steps count from 1, W = schedule.warmup, S = train.steps, f = schedule.final:
//   step <= W:                       lr * step / W
//   later, p = (step - W) / (S - W), at most 1:
//     constant:                      lr
//     cosine:                        lr * (f + (1 - f) * (1 + cos(pi * p)) / 2)
//     linear:                        lr * (1 - (1 - f) * p)
// So step W runs at lr and step S at f * lr. Cosine: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5
// without restarts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "trainer/config/config.hpp"

namespace muster {

inline double learning_rate(const ScheduleConfig& schedule, double lr, std::int64_t steps,
                            std::int64_t step) {
  if (step <= schedule.warmup) return lr * static_cast<double>(step) / static_cast<double>(schedule.warmup);
  const double p = steps > schedule.warmup ? std::min(1.0, static_cast<double>(step - schedule.warmup) /
                                                               static_cast<double>(steps - schedule.warmup))
                                           : 1.0;
  switch (schedule.kind) {
    case ScheduleKind::constant:
      break;
    case ScheduleKind::cosine:
      return lr * (schedule.final + (1 - schedule.final) * (1 + std::cos(std::numbers::pi * p)) / 2);
    case ScheduleKind::linear:
      return lr * (1 - (1 - schedule.final) * p);
  }
  return lr;
}

}  // namespace muster
