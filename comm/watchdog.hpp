// The watchdog: when a collective takes too long, a peer hangs, and so would the whole job, for ever. It says
// who waits for whom and ends all ranks with ExitCode::try_again. It also notices lost peers, and devices that
// fail, while the ranks' own threads wait for them.
//
// To ask a device can block, where another thread waits inside the driver for a peer; so one thread asks, and
// another one sees whether it was answered.
//
// Only the time after a collective's start counts: a rank that still computes what it is going to send is not
// waiting, a rank that waits for it is.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "comm/communicator.hpp"
#include "core/error.hpp"

namespace muster {

class Watchdog {
 public:
  // Watches `comm`, which outlives it. A limit of 0 s never barks.
  Watchdog(Communicator& comm, double limit_seconds);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // The training step, for the report.
  void set_step(std::int64_t step) { step_ = step; }

 private:
  struct Trouble {
    std::string line;
    ExitCode code;
  };
  void stop();
  void every_interval(const std::function<std::optional<Trouble>()>& look);
  // What is wrong, if anything.
  std::optional<Trouble> trouble() const;
  std::optional<Trouble> no_answer() const;
  std::string ending(const std::string& what) const;
  std::string report(const PendingCollective& pending) const;

  Communicator& comm_;
  double limit_seconds_;
  std::atomic<std::int64_t> step_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::atomic<double> asked_ =
      0;  // since when `trouble` waits for an answer, in steady seconds; 0: it does not
  std::thread asking_, watching_;
};

}  // namespace muster
