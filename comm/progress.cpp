#include "comm/progress.hpp"

#include <algorithm>
#include <chrono>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include "core/stream.hpp"

namespace muster {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// How long to sleep when nothing has moved for `quiet`: an eighth of that, so that a message is noticed
// soon in proportion to the time it took.
std::chrono::microseconds pause_after(Clock::duration quiet) {
  return std::clamp(std::chrono::duration_cast<std::chrono::microseconds>(quiet / 8), 20us, 1000us);
}

// Below this, a message is likely to be answered before a sleep would end.
constexpr auto patience = 10us;

// A message that counts as sent may still lie in a queue of the transport, which moves when it is polled.
constexpr auto heartbeat = 10ms;

// What sched_setattr(2) takes; the header that has it does not go together with <sched.h>.
struct SchedulingAttributes {
  std::uint32_t size = sizeof(SchedulingAttributes), policy = 0;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 0, deadline = 0, period = 0;  // ns
};

// Refused, it costs some latency only. Without the first the system may lengthen each sleep by 50 us. Without the
// second (Linux 6.12 and later) a thread that computes keeps its core for milliseconds while a message waits; what
// share of the core each has stays the same.
void ask_to_run_soon() {
  prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  SchedulingAttributes mine;
  if (syscall(SYS_sched_getattr, 0, &mine, sizeof(mine), 0) != 0) return;
  mine.runtime = 100'000;
  syscall(SYS_sched_setattr, 0, &mine, 0);
}

}  // namespace

ProgressThread::ProgressThread() : thread_([this] { run(); }) {}

ProgressThread::~ProgressThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ProgressThread::post(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
}

void ProgressThread::call(const std::function<void()>& job) {
  const Promise done;
  post([&job, done] {
    std::exception_ptr failure;
    try {
      job();
    } catch (...) {
      failure = std::current_exception();
    }
    done.set_complete(failure);
  });
  done.event().wait();
}

void ProgressThread::add(Progressing& object) { objects_.push_back(&object); }

void ProgressThread::remove(Progressing& object) { std::erase(objects_, &object); }

void ProgressThread::run() {
  ask_to_run_soon();
  Clock::time_point last_move = Clock::now();
  std::vector<std::function<void()>> jobs;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      const auto called = [&] { return stopping_ || !jobs_.empty(); };
      if (std::ranges::all_of(objects_, &Progressing::idle)) {
        if (objects_.empty())
          changed_.wait(lock, called);
        else
          changed_.wait_for(lock, heartbeat, called);
        last_move = Clock::now();
      } else if (const auto quiet = Clock::now() - last_move; quiet > patience) {
        changed_.wait_for(lock, pause_after(quiet), called);
      } else {
        lock.unlock();
        std::this_thread::yield();
        lock.lock();
      }
      if (stopping_ && jobs_.empty()) return;
      jobs.swap(jobs_);
    }
    bool moved = !jobs.empty();
    for (const auto& job : jobs) job();
    jobs.clear();
    for (Progressing* object : objects_) moved = object->advance() || moved;
    if (moved) last_move = Clock::now();
  }
}

}  // namespace muster
