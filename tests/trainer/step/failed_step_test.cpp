// A step that fails on one rank while several buckets of gradients are to leave: all ranks end it alike.

#include <atomic>
#include <cstring>
#include <gtest/gtest.h>
#include <string>

#include "tests/trainer/small_run.hpp"

namespace muster {
namespace {

// The table's second bucket is final before its first, which waits for the positions behind the table, and
// the two differ in size: a rank that sends them in another order meets messages that it does not expect.
TEST(FailedStep, sends_its_buckets_in_the_order_of_the_others) {
  Config config = small_run::config();
  config.train.batch = config.train.shards = 2;
  config.model.width = 64;
  config.model.vocabulary = 120000;
  const RunPlan plan = make_run_plan(config, 2, 0, 1, 0);
  ASSERT_EQ(plan.buckets.size(), 2u);
  ASSERT_NE(plan.buckets[0].range.size(), plan.buckets[1].range.size());
  std::atomic<int> failed = 0;
  run_ranks(2, [&](Communicator& comm) {
    set_thread_count(1);
    MemoryAccount account;
    const RunPlan mine = make_run_plan(config, 2, comm.rank(), 1, 0);
    Machine machine(cpu_device(), account);
    ModelState state(mine, config, machine);
    Prefetch prefetch(
        micro_batch_fields(config),
        [&](std::int64_t slot, std::int64_t count, Batch& batch) {
          if (comm.rank() == 1) throw UserError("train-00003.h5 ends early: prepare the data again");
          small_run::fill(config, slot, count, batch);
        },
        account, prefetch_depth, config.train.micro_batch);
    Position position;
    TrainingStep training(config, mine, state, {comm, comm}, position);
    training.request(prefetch, 0);
    try {
      training.start(prefetch, 1e-3);
      training.finish(position);
    } catch (const UserError& error) {
      failed += std::strcmp(error.what(), "train-00003.h5 ends early: prepare the data again") == 0 ? 1 : 0;
    }
  });
  EXPECT_EQ(failed, 2);
}

}  // namespace
}  // namespace muster
