#include "comm/watchdog.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <vector>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/host.hpp"
#include "core/stream.hpp"

namespace muster {
namespace {

// Ranks that wait in the same collective notice it at about the same time; the first must not end the others
// before they have said so.
constexpr std::chrono::milliseconds time_to_report{500};

// Onto the screen, and into the log where there is one. Returns when both had time for it: the log's disk may be what
// hangs.
void say_last_words(const std::string& line, const std::string& log) {
  const std::string words = "muster: " + line + "\n";
  // One call, so that lines of ranks do not mix.
  std::fwrite(words.data(), 1, words.size(), stderr);
  std::fflush(stderr);
  try {
    if (!log.empty())
      std::thread([line, log] {
        try {
          const auto now = std::chrono::system_clock::now();
          File::open_to_append(log).write(
              fmt::format("{:%Y-%m-%d %H:%M:%S}.000 error {}\n",
                          fmt::localtime(std::chrono::system_clock::to_time_t(now)), line));
        } catch (const std::exception&) {  // the screen has it
        }
      }).detach();
  } catch (const std::exception&) {  // the system grants no more threads
  }
  std::this_thread::sleep_for(time_to_report);
}

}  // namespace

Watchdog::Watchdog(Communicator& comm, double limit_seconds)
    : comm_(comm),
      limit_seconds_(limit_seconds),
      looked_(steady_seconds()),
      vigil_(comm.size(), limit_seconds, 0) {
  if (limit_seconds_ <= 0) return;
  signs_ = comm_.exchange_signs([this] { return sign_of(comm_.pulse().read(), limit_seconds_); }, interval());
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

void Watchdog::leave() {
  comm_.barrier("the end").wait();
  const Pulse::Work work = comm_.pulse().work("leaving the other ranks");
  if (signs_) signs_->leave();
}

double Watchdog::interval() const { return std::clamp(limit_seconds_ / 8, 0.01, 5.0); }

void Watchdog::every_interval(const std::function<std::optional<Trouble>()>& look) {
  const std::chrono::duration<double> pause(interval());
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, pause, [this] { return stopping_; })) {
    lock.unlock();
    const std::optional<Trouble> found = look();
    lock.lock();
    if (!found) continue;
    say_last_words(found->line, comm_.pulse().log());
    comm_.abort(static_cast<int>(found->code));
  }
}

double Watchdog::awake() {
  const double now = steady_seconds();
  awake_ += std::min(now - std::exchange(looked_, now), 4 * interval());
  return awake_;
}

std::optional<Watchdog::Trouble> Watchdog::trouble() {
  try {
    const double now = awake();
    const Pulse::Reading mine = comm_.pulse().read();
    vigil_.hear(comm_.rank(), sign_of(mine, limit_seconds_), now);
    if (signs_) signs_->collect([&](int rank, const Sign& sign) { vigil_.hear(rank, sign, now); });
    if (const double overdue = vigil_.overdue(comm_.rank(), now); overdue > 0)
      return Trouble{ending(fmt::format("has got no further for {:.0f} s in {}", overdue, mine.task.what)),
                     ExitCode::try_again};
    const auto pending = comm_.oldest_pending();
    if (!pending || pending->seconds < limit_seconds_ || vigil_.any_lives(now)) return std::nullopt;
    return Trouble{report(*pending, now), ExitCode::try_again};
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
  return fmt::format("rank {} on {} at step {}: {}; ending all ranks", comm_.rank(), host_name(),
                     comm_.pulse().step(), what);
}

std::string Watchdog::report(const PendingCollective& pending, double now) const {
  std::vector<std::string> ranks;
  for (const int rank : pending.waiting) {
    const std::string known = signs_ ? vigil_.known_of(rank, now) : "";
    ranks.push_back(known.empty() ? fmt::format("{}", rank) : fmt::format("{} ({})", rank, known));
  }
  const auto silent =
      ranks.empty() ? std::string("its own progress thread")
                    : fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
  return fmt::format("rank {} on {} has waited {:.0f} s in {} at step {} for {}; ending all ranks",
                     comm_.rank(), host_name(), pending.seconds, pending.what, comm_.pulse().step(), silent);
}

Deadline::Deadline(std::string what, double limit_seconds, std::string log) {
  if (limit_seconds <= 0) return;
  thread_ = std::thread([this, what = std::move(what), limit_seconds, log = std::move(log)] {
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::duration<double>(limit_seconds), [this] { return over_; }))
      return;
    say_last_words(
        fmt::format("{} has taken {:.0f} s on {}: a rank did not come to it, or hangs; ending this "
                    "one",
                    what, limit_seconds, host_name()),
        log);
    std::_Exit(static_cast<int>(ExitCode::try_again));
  });
}

Deadline::~Deadline() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace muster
