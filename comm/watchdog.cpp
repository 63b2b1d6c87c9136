#include "comm/watchdog.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.hpp"
#include "core/host.hpp"
#include "core/stream.hpp"

namespace muster {
namespace {

// Ranks that wait in the same collective notice it at about the same time; the first must not end the others
// before they have said so.
constexpr std::chrono::milliseconds time_to_report{500};

}  // namespace

Watchdog::Watchdog(Communicator& comm, double limit_seconds) : comm_(comm), limit_seconds_(limit_seconds) {
  if (limit_seconds_ <= 0) return;
  asking_ = std::thread([this] {
    every_interval([this] {
      asked_ = steady_seconds();
      std::optional<Trouble> found = trouble();
      asked_ = 0;
      return found;
    });
  });
  try {
    watching_ = std::thread([this] { every_interval([this] { return no_answer(); }); });
  } catch (...) {  // the system grants no more threads
    stop();
    throw;
  }
}

Watchdog::~Watchdog() { stop(); }

void Watchdog::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (asking_.joinable()) asking_.join();
  if (watching_.joinable()) watching_.join();
}

void Watchdog::every_interval(const std::function<std::optional<Trouble>()>& look) {
  const std::chrono::duration<double> interval(std::clamp(limit_seconds_ / 8, 0.01, 5.0));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval, [this] { return stopping_; })) {
    lock.unlock();
    const std::optional<Trouble> found = look();
    lock.lock();
    if (!found) continue;
    // One call, so that lines of ranks do not mix.
    std::fwrite(found->line.data(), 1, found->line.size(), stderr);
    std::fflush(stderr);
    std::this_thread::sleep_for(time_to_report);
    comm_.abort(static_cast<int>(found->code));
  }
}

std::optional<Watchdog::Trouble> Watchdog::trouble() const {
  try {
    const auto pending = comm_.oldest_pending();
    if (!pending || pending->seconds < limit_seconds_) return std::nullopt;
    return Trouble{report(*pending), ExitCode::try_again};
  } catch (const PeerError& error) {
    return Trouble{ending(error.what()), ExitCode::try_again};
  } catch (const std::exception& error) {  // of the device, or of NCCL itself
    return Trouble{ending(error.what()), ExitCode::defect};
  }
}

std::optional<Watchdog::Trouble> Watchdog::no_answer() const {
  const double since = asked_, seconds = steady_seconds() - since;
  if (since == 0 || seconds < limit_seconds_) return std::nullopt;
  return Trouble{ending(fmt::format("its device has not answered for {:.0f} s", seconds)),
                 ExitCode::try_again};
}

std::string Watchdog::ending(const std::string& what) const {
  return fmt::format("muster: rank {} on {} at step {}: {}; ending all ranks\n", comm_.rank(), host_name(),
                     step_.load(), what);
}

std::string Watchdog::report(const PendingCollective& pending) const {
  const auto silent = pending.waiting.empty()
                          ? std::string("its own progress thread")
                          : fmt::format("{} {}", pending.waiting.size() == 1 ? "rank" : "ranks",
                                        fmt::join(pending.waiting, ", "));
  return fmt::format("muster: rank {} on {} has waited {:.0f} s in {} at step {} for {}; ending all ranks\n",
                     comm_.rank(), host_name(), pending.seconds, pending.what, step_.load(), silent);
}

}  // namespace muster
