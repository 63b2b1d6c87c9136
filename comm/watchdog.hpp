// The watchdog: when nobody of a job gets on, it would hang for ever. It says who waits for whom, or at what a rank is
// stuck, and ends all ranks with ExitCode::try_again. It also notices lost peers, and devices that fail, while the ranks'
// own threads wait for them.
//
// A rank that waits in a collective is no reason to bark as long as some rank shows a pulse (core/pulse.hpp): it saves,
// say, on a slow disk. Only the time after a collective's start counts: a rank that still computes what it is going to
// send is not waiting, a rank that waits for it is. Nor does time count in which the watchdog itself was stopped.
//
// To ask a device can block, where another thread waits inside the driver for a peer; so one thread asks, and
// another one sees whether it was answered.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "comm/communicator.hpp"
#include "comm/signs_of_life.hpp"
#include "comm/vigil.hpp"
#include "core/error.hpp"

namespace muster {

class Watchdog {
 public:
  // Watches `comm`, which outlives it, and this rank's pulse there. A limit of 0 s never barks. Collective.
  Watchdog(Communicator& comm, double limit_seconds);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Collective, at the end of a job that ends in order: nobody is watched any more.
  void leave();

 private:
  struct Trouble {
    std::string line;
    ExitCode code;
  };
  void stop();
  double interval() const;
  void every_interval(const std::function<std::optional<Trouble>()>& look);
  // What is wrong, if anything.
  std::optional<Trouble> trouble();
  std::optional<Trouble> no_answer() const;
  // Seconds that this watchdog was awake.
  double awake();
  std::string ending(const std::string& what) const;
  std::string report(const PendingCollective& pending, double now) const;

  Communicator& comm_;
  double limit_seconds_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::atomic<double> asked_ =
      0;  // since when `trouble` waits for an answer, in steady seconds; 0: it does not
  // Of the thread that asks.
  double awake_ = 0, looked_ = 0;
  Vigil vigil_;
  std::unique_ptr<SignsOfLife> signs_;
  std::thread asking_, watching_;
};

// Ends this process with ExitCode::try_again, and a line that names `what`, unless it is over in time. For what cannot be
// watched otherwise: the start and the end of MPI, when there is no communicator. A limit of 0 s is none.
class Deadline {
 public:
  Deadline(std::string what, double limit_seconds, std::string log = {});
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace muster
