#include "core/parallel.hpp"

#include <atomic>
#include <gtest/gtest.h>
#include <stdexcept>
#include <thread>
#include <vector>

namespace muster {
namespace {

class WithThreads : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_thread_count(GetParam()); }
  void TearDown() override { set_thread_count(1); }
};

TEST_P(WithThreads, every_task_runs_exactly_once) {
  for (int round = 0; round < 300; ++round) {
    std::vector<int> runs(static_cast<std::size_t>(round));
    parallel_tasks(round, [&](std::int64_t task, int) { ++runs[static_cast<std::size_t>(task)]; });
    for (const int count : runs) ASSERT_EQ(count, 1);
  }
}

TEST_P(WithThreads, thread_numbers_stay_below_the_count) {
  std::atomic<int> highest = 0;
  parallel_tasks(1000, [&](std::int64_t, int thread) {
    for (int seen = highest; seen < thread && !highest.compare_exchange_weak(seen, thread);) {
    }
  });
  EXPECT_LT(highest, GetParam());
}

TEST_P(WithThreads, what_tasks_wrote_is_seen_after_the_loop) {
  std::vector<std::int64_t> squares(5000);
  parallel_ranges(5000, 7, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) squares[static_cast<std::size_t>(i)] = i * i;
  });
  for (std::int64_t i = 0; i < 5000; ++i) ASSERT_EQ(squares[static_cast<std::size_t>(i)], i * i);
}

TEST_P(WithThreads, a_loop_inside_a_task_runs_on_that_thread) {
  std::atomic<int> inner = 0;
  parallel_tasks(8, [&](std::int64_t, int) {
    const auto self = std::this_thread::get_id();
    parallel_tasks(5, [&](std::int64_t, int) { inner += std::this_thread::get_id() == self ? 1 : 0; });
  });
  EXPECT_EQ(inner, 40);
}

TEST_P(WithThreads, a_failure_of_a_task_reaches_the_caller_and_the_pool_goes_on) {
  const auto failing = [] {
    parallel_tasks(100, [](std::int64_t task, int) {
      if (task == 63) throw std::runtime_error("broken");
    });
  };
  EXPECT_THROW(failing(), std::runtime_error);
  std::atomic<int> runs = 0;
  parallel_tasks(10, [&](std::int64_t, int) { ++runs; });
  EXPECT_EQ(runs, 10);
}

INSTANTIATE_TEST_SUITE_P(Threads, WithThreads, testing::Values(1, 2, 3, 4));

}  // namespace
}  // namespace muster
