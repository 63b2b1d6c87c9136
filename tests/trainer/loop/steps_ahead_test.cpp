// How far ahead steps are started, and what they read is asked for.

#include "trainer/loop/steps_ahead.hpp"

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <gtest/gtest.h>
#include <mutex>
#include <set>
#include <vector>

#include "tests/trainer/small_run.hpp"

namespace muster {
namespace {

using Numbers = std::vector<std::int64_t>;

// The steps whose samples were read, as the reader comes to them.
class Read {
 public:
  void add(std::int64_t step) {
    const std::lock_guard lock(mutex_);
    steps_.insert(step);
    changed_.notify_all();
  }
  // Waits for ever if nobody asks for it.
  void wait_for(std::int64_t step) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return steps_.contains(step); });
  }
  std::set<std::int64_t> steps() {
    const std::lock_guard lock(mutex_);
    return steps_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::int64_t> steps_;
};

// Calls `body` with the steps of a rank alone behind `position`, up to `last`; returns those whose samples were read.
std::set<std::int64_t> with_steps(bool device_is_host, std::int64_t last,
                                  const std::function<void(StepsAhead&, Position&, Read&)>& body,
                                  Position position = {}) {
  Read read;
  run_ranks(1, [&](Communicator& comm) {
    set_thread_count(1);
    const Config config = small_run::config();
    MemoryAccount account;
    Machine machine(cpu_device(), account);
    const RunPlan plan = make_run_plan(config, 1, 0, 1, 0);
    ModelState state(plan, config, machine);
    state.initialise(plan, 1);
    // A ring with room for all that is asked for.
    Prefetch prefetch(
        micro_batch_fields(config),
        [&](std::int64_t slot, std::int64_t count, Batch& batch) {
          small_run::fill(config, slot, count, batch);
          read.add(slot / config.train.batch + 1);
        },
        account, 64, config.train.micro_batch);
    TrainingStep step(config, plan, state, {comm, comm}, position);
    StepsAhead steps(step, prefetch, position, device_is_host, last);
    body(steps, position, read);
    while (steps.pending() > 0) steps.finish();
  });
  return read.steps();
}

// The numbers of the steps that this starts.
Numbers started_by(StepsAhead& steps, const std::function<bool(std::int64_t)>& pauses = {}) {
  Numbers started;
  steps.start(
      [&](std::int64_t step) {
        started.push_back(step);
        return StepOrder{1e-3};
      },
      pauses);
  return started;
}

TEST(StepsAhead, are_one_at_a_time_where_the_host_computes) {
  with_steps(true, 3, [](StepsAhead& steps, Position& position, Read&) {
    for (std::int64_t step = 1; step <= 3; ++step) {
      EXPECT_EQ(started_by(steps), Numbers{step});
      EXPECT_EQ(started_by(steps), Numbers()) << "one is under way";
      EXPECT_GT(steps.finish().seconds, 0);
      EXPECT_EQ(position.step, step);
    }
    EXPECT_EQ(started_by(steps), Numbers()) << "there are no more";
    EXPECT_EQ(steps.pending(), 0u);
  });
}

TEST(StepsAhead, give_a_device_the_next_step_before_the_last_is_known) {
  with_steps(false, 4, [](StepsAhead& steps, Position& position, Read&) {
    EXPECT_EQ(started_by(steps), (Numbers{1, 2}));
    steps.finish();
    EXPECT_EQ(position.step, 1);
    EXPECT_EQ(started_by(steps), Numbers{3});
    steps.finish();
    EXPECT_EQ(started_by(steps), Numbers{4});
    steps.finish();
    EXPECT_EQ(started_by(steps), Numbers());
    EXPECT_EQ(steps.pending(), 1u);
  });
}

TEST(StepsAhead, start_none_behind_one_after_which_they_pause) {
  with_steps(false, 4, [](StepsAhead& steps, Position&, Read&) {
    const auto pauses = [](std::int64_t step) { return step == 2; };
    EXPECT_EQ(started_by(steps, pauses), (Numbers{1, 2}));
    steps.finish();
    EXPECT_EQ(started_by(steps, pauses), Numbers());
    steps.finish();
    EXPECT_EQ(started_by(steps, pauses), (Numbers{3, 4})) << "the pause is over";
  });
}

TEST(StepsAhead, go_on_from_a_position) {
  const auto take_two = [](StepsAhead& steps, Position& position, Read&) {
    EXPECT_EQ(started_by(steps), (Numbers{3, 4}));
    steps.finish();
    EXPECT_EQ(position.step, 3);
  };
  EXPECT_EQ(with_steps(false, 4, take_two, {.step = 2}), (std::set<std::int64_t>{3, 4}));
}

TEST(StepsAhead, ask_for_nothing_beyond_the_last) {
  const auto take_all = [](StepsAhead& steps, Position&, Read&) {
    while (!started_by(steps).empty()) steps.finish();
  };
  EXPECT_EQ(with_steps(true, 2, take_all), (std::set<std::int64_t>{1, 2}));
}

TEST(StepsAhead, ask_a_step_ahead) {
  with_steps(true, 3, [](StepsAhead& steps, Position&, Read& read) {
    EXPECT_EQ(started_by(steps), Numbers{1});
    read.wait_for(2);
    EXPECT_EQ(read.steps(), (std::set<std::int64_t>{1, 2}));
  });
}

}  // namespace
}  // namespace muster
