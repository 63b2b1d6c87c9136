#include "trainer/metrics/step_line.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "core/text.hpp"

namespace muster {
namespace {

int width_of_steps(std::int64_t total) {
  return std::max(10, 2 * static_cast<int>(fmt::formatted_size("{}", total)) + 1);
}

}  // namespace

std::string step_heading(std::int64_t total) {
  return fmt::format("{:>{}} {:>9} {:>9} {:>9} {:>9} {:>6}  {:<12}", "step", width_of_steps(total), "loss",
                     "norm", "lr", "tokens/s", "sol", "left");
}

std::string step_line(const StepRecord& record, std::int64_t total, double seconds_left) {
  const std::string sol = record.sol > 0 ? fmt::format("{:.1f}%", 100 * record.sol) : "-";
  return fmt::format("{:>{}} {:>9.4f} {:>9.3g} {:>9.2e} {:>9} {:>6}  {:<12}{}",
                     fmt::format("{}/{}", record.step, total), width_of_steps(total), record.loss,
                     record.grad_norm, record.lr, human_count(record.tokens_per_s), sol,
                     human_seconds(seconds_left), record.skipped ? " skipped" : "");
}

double TimeLeft::after_step(std::int64_t step, std::int64_t total, double seconds) {
  constexpr double keep = 0.9;
  average_ = keep * average_ + (1 - keep) * seconds;
  weight_ = keep * weight_ + (1 - keep);
  return average_ / weight_ * static_cast<double>(std::max<std::int64_t>(0, total - step));
}

}  // namespace muster
