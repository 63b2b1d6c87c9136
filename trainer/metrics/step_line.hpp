// What a person watches: one line a step in columns, under one line of headings.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/metrics/metrics_file.hpp"

namespace muster {

// The headings, as wide as the lines of a run of `total` steps.
std::string step_heading(std::int64_t total);
// step/total, loss, gradient norm, learning rate, tokens/s, sol, time left.
std::string step_line(const StepRecord& record, std::int64_t total, double seconds_left);

// Estimates the time left from the recent steps: the average forgets half of a step after about seven more.
class TimeLeft {
 public:
  // `seconds`: all that passed since the step before, evaluation and saving included.
  double after_step(std::int64_t step, std::int64_t total, double seconds);

 private:
  double average_ = 0, weight_ = 0;
};

}  // namespace muster
