#include "trainer/loop/skipped_steps.hpp"

#include <fmt/format.h>

#include "core/error.hpp"

namespace muster {

void SkippedSteps::count(const StepResult& result) {
  const bool empty = result.targets == 0;
  skipped_ += result.skipped ? 1 : 0;
  diverged_ = result.skipped && !empty ? diverged_ + 1 : 0;
  empty_ += empty ? 1 : 0;
  empty_in_a_row_ = empty ? empty_in_a_row_ + 1 : 0;
}

void SkippedSteps::refuse_to_waste(std::int64_t step) const {
  if (empty_in_a_row_ >= most_in_a_row)
    throw UserError(
        "the batches of the last {} steps, to {}, held no target, each document in them is a single token: "
        "prepare other text",
        most_in_a_row, step);
  if (diverged_ >= most_in_a_row)
    throw UserError(
        "the loss or gradient of the last {} steps, to {}, was not finite: the run has diverged; start "
        "another run.dir with a smaller optimizer.lr or a longer schedule.warmup",
        most_in_a_row, step);
}

std::vector<std::string> SkippedSteps::summary() const {
  std::vector<std::string> lines;
  if (skipped_ > empty_)
    lines.push_back(
        fmt::format("{} steps were skipped: their loss or gradient was not finite", skipped_ - empty_));
  if (empty_ > 0) lines.push_back(fmt::format("{} steps were skipped: their batches held no target", empty_));
  return lines;
}

}  // namespace muster
