// Training steps one after another: what is to be read is asked for a step ahead, and a device of its own is given a step
// before the outcome of the last is known. A CPU's stream has run a step when it has been started.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "data/prefetch.hpp"
#include "trainer/step/position.hpp"
#include "trainer/step/training_step.hpp"

namespace muster {

// What a step is told as it begins; the rest it knows from the configuration.
struct StepOrder {
  double lr = 0;
  std::function<bool()> stop = {};          // as TrainingStep::start
  std::vector<StepTimes>* times = nullptr;  // the same
};

class StepsAhead {
 public:
  struct Finished {
    StepResult result;
    double seconds = 0;  // since the step began, or the one before it ended if that was later
  };
  // All outlive it. `step` goes on from `position`, which is advanced. Steps beyond the `last` are neither started nor
  // asked for.
  StepsAhead(TrainingStep& step, Prefetch& prefetch, Position& position, bool device_is_host,
             std::int64_t last = std::numeric_limits<std::int64_t>::max());

  // Starts as many steps as may be under way, `order` telling of each, by its number from 1, what it is told. Behind one
  // after which it `pauses` none is started.
  void start(const std::function<StepOrder(std::int64_t step)>& order,
             const std::function<bool(std::int64_t step)>& pauses = {});
  // Steps that were started and not finished.
  std::size_t pending() const { return step_.pending(); }
  std::int64_t started() const { return started_; }
  // Waits for the oldest of them.
  Finished finish();

 private:
  using Clock = std::chrono::steady_clock;

  TrainingStep& step_;
  Prefetch& prefetch_;
  Position& position_;
  std::size_t most_;  // under way
  std::int64_t last_, started_, requested_;
  Clock::time_point begun_;
};

}  // namespace muster
