#include "core/arithmetic_rate.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "core/parallel.hpp"

namespace muster {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

double undisturbed_seconds(std::vector<double> runs) {
  const auto place = runs.begin() + static_cast<std::ptrdiff_t>(runs.size() / 8);
  std::ranges::nth_element(runs, place);
  return *place;
}

ArithmeticRate measure_arithmetic(const RegisterLoop& loop, double seconds) {
  struct alignas(64) Thread {
    std::vector<double> runs;
    double seconds = 0;
  };
  const int threads = thread_count();
  std::vector<Thread> all(static_cast<std::size_t>(threads));
  std::atomic<int> begun = 0;
  parallel_tasks(threads, [&](std::int64_t task, int) {
    // Nobody takes a second task while others wait for him here.
    begun.fetch_add(1);
    while (begun.load() < threads) std::this_thread::yield();
    Thread& mine = all[static_cast<std::size_t>(task)];
    const Clock::time_point begin = Clock::now();
    for (Clock::time_point last = begin; mine.seconds < seconds;) {
      loop.run();
      const Clock::time_point now = Clock::now();
      mine.runs.push_back(seconds_between(last, now));
      mine.seconds = seconds_between(begin, now);
      last = now;
    }
  });

  ArithmeticRate rate;
  double reached = 0;
  for (const Thread& thread : all) {
    rate.per_core += loop.flops / undisturbed_seconds(thread.runs) / threads;
    reached += loop.flops * static_cast<double>(thread.runs.size()) / thread.seconds;
  }
  rate.cores = reached / rate.per_core;
  return rate;
}

}  // namespace muster
