#include "trainer/loop/steps_ahead.hpp"

#include <utility>

namespace muster {

StepsAhead::StepsAhead(TrainingStep& step, Prefetch& prefetch, Position& position, bool device_is_host,
                       std::int64_t last)
    : step_(step),
      prefetch_(prefetch),
      position_(position),
      most_(device_is_host ? 1 : most_pending),
      last_(last),
      started_(position.step),
      requested_(position.step) {}

void StepsAhead::start(const std::function<StepOrder(std::int64_t)>& order,
                       const std::function<bool(std::int64_t)>& pauses) {
  if (pending() == 0) begun_ = Clock::now();
  while (started_ < last_ && pending() < most_ && !(pending() > 0 && pauses && pauses(started_))) {
    const std::int64_t ahead = started_ + 1;
    const StepOrder told = order(ahead);
    for (; requested_ < last_ && requested_ <= ahead; ++requested_) step_.request(prefetch_, requested_);
    step_.start(prefetch_, told.lr, told.stop, told.times);
    started_ = ahead;
  }
}

StepsAhead::Finished StepsAhead::finish() {
  Finished finished{step_.finish(position_), 0};
  const Clock::time_point now = Clock::now();
  finished.seconds = std::chrono::duration<double>(now - std::exchange(begun_, now)).count();
  return finished;
}

}  // namespace muster
