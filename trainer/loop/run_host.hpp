// What a run stands on.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "trainer/step/machine.hpp"
#include "trainer/step/ranks.hpp"

namespace muster {

struct RunHost {
  Ranks ranks;
  Machine& machine;
  // Whether this rank was asked to stop; asked at every safe point, `step` being the one under way or just ended.
  std::function<bool(std::int64_t step)> stop_requested;
  std::int64_t traced_step = 0;  // of this step a trace is written; 0: none
  bool console = false;          // whether rank 0 also writes to the screen
  // Told how many steps are not in a checkpoint yet.
  std::function<void(std::int64_t steps)> unsaved = [](std::int64_t) {};

  bool speaks() const { return ranks.host.rank() == 0; }
};

// How long a run may last, from now on.
class TimeLimit {
 public:
  explicit TimeLimit(double seconds) : seconds_(seconds) {}  // 0: without end

  bool is_up() const {
    return seconds_ > 0 && std::chrono::duration<double>(Clock::now() - begun_).count() > seconds_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begun_ = Clock::now();
  double seconds_;
};

}  // namespace muster
