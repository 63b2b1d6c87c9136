// How long a rank is held up by the others.
#pragma once

#include <chrono>
#include <utility>

namespace muster {

// Adds up the time in which the calling thread is blocked. Waits appended to a stream that has a thread of
// its own block nobody and count for nothing.
class WaitClock {
 public:
  template <class Fn>
  void during(Fn&& blocks) {
    const auto start = std::chrono::steady_clock::now();
    std::forward<Fn>(blocks)();
    ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }
  // What has come together since the last call.
  double take_ms() { return std::exchange(ms_, 0); }

 private:
  double ms_ = 0;
};

}  // namespace muster
