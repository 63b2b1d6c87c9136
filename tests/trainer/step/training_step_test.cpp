// The training step: the same bits however its work is divided, delayed or shuffled, and what it does when
// there is nothing to learn from.

#include "trainer/step/training_step.hpp"

#include <atomic>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <string>
#include <tuple>

#include "comm/agree.hpp"
#include "comm/async_communicator.hpp"
#include "tests/trainer/small_run.hpp"

#if defined(__SANITIZE_THREAD__)
constexpr bool under_thread_sanitizer = true;
#else
constexpr bool under_thread_sanitizer = false;
#endif

namespace muster {
namespace {

using small_run::Disturbance;
using small_run::Outcome;
using small_run::train;

void expect_same_bits(const Outcome& outcome, const Outcome& expected) {
  EXPECT_EQ(outcome.losses(), expected.losses());
  EXPECT_EQ(outcome.norms(), expected.norms());
  EXPECT_EQ(outcome.hashes, expected.hashes);
}

using Variant = std::tuple<int, int, Precision>;  // ranks, sharding, precision

class Division : public testing::TestWithParam<Variant> {};

TEST_P(Division, gives_the_bits_of_one_rank_without_delays) {
  const auto& [ranks, sharding, precision] = GetParam();
  Config config = small_run::config(precision == Precision::f32 ? Family::gpt : Family::llama);
  config.run.precision = precision;
  const Outcome expected = train(config, 1);
  EXPECT_TRUE(expected.steps.back().clipped);
  EXPECT_NE(expected.losses().front(), expected.losses().back());
  config.train.sharding = sharding;
  expect_same_bits(train(config, ranks, {.threads = 2, .delays = 7}), expected);
}

std::string name_of_variant(const testing::TestParamInfo<Variant>& test) {
  const auto& [ranks, sharding, precision] = test.param;
  return std::to_string(ranks) + "_ranks_sharding_" + std::to_string(sharding) +
         (precision == Precision::f32 ? "_gpt_f32" : "_llama_bf16");
}

INSTANTIATE_TEST_SUITE_P(OverRanks, Division,
                         testing::Combine(testing::Values(1, 2, 3), testing::Values(0, 1),
                                          testing::Values(Precision::f32, Precision::bf16)),
                         name_of_variant);

TEST(TrainingStep, eight_ranks_give_the_bits_of_one) {
  const Config config = small_run::config();
  expect_same_bits(train(config, 8, {.delays = 3}), train(config, 1));
}

TEST(TrainingStep, the_size_of_micro_batches_is_the_users_choice_and_that_of_ranks_is_not) {
  Config config = small_run::config();
  config.train.batch = 16;
  config.train.shards = 4;
  config.train.micro_batch = 2;
  expect_same_bits(train(config, 3), train(config, 1));
}

// Tables of more than one bucket: some leave while backward still computes the others.
TEST(TrainingStep, several_buckets_give_the_bits_of_one_rank) {
  Config config = small_run::config();
  config.train.steps = 1;
  config.train.batch = config.train.shards = 2;
  config.model.width = 64;
  config.model.vocabulary = 103000;
  const RunPlan plan = make_run_plan(config, 2, 0, 1, 0);
  ASSERT_GE(plan.buckets.size(), 2u);
  const Outcome expected = train(config, 1);
  expect_same_bits(train(config, 2, {.delays = 5}), expected);
}

// Collectives that start late and end late are the worst that streams and communicators are allowed.
TEST(TrainingStep, waits_for_everything_that_may_come_late) {
  Config config = small_run::config();
  const Outcome expected = train(config, 1);
  for (const std::int64_t sharding : {0, 1}) {
    config.train.sharding = sharding;
    expect_same_bits(train(config, 3, {.delays = 11, .late = std::chrono::milliseconds(15)}), expected);
  }
}

// Shows that the test above can fail. It races on purpose, so not under ThreadSanitizer.
TEST(TrainingStep, without_its_waits_would_compute_something_else) {
  if (under_thread_sanitizer) GTEST_SKIP() << "races on purpose";
  for (const std::int64_t sharding : {0, 1}) {
    Config config = small_run::config();
    config.train.sharding = sharding;
    const Outcome expected = train(config, 1);
    const Outcome careless =
        train(config, 2,
              {.delays = 11, .late = std::chrono::milliseconds(50), .drop_waits = true, .may_diverge = true});
    EXPECT_NE(careless.hashes, expected.hashes) << "sharding " << sharding;
    EXPECT_NE(careless.losses(), expected.losses()) << "sharding " << sharding;
  }
}

TEST(TrainingStep, in_fast_mode_differs_from_one_rank_by_rounding_only) {
  Config config = small_run::config();
  config.train.reduction = Reduction::fast;
  config.train.steps = 1;
  const Outcome one = train(config, 1), four = train(config, 4, {.delays = 1});
  // The bound that the ranks of fast mode must keep at the first step.
  EXPECT_NEAR(four.losses()[0], one.losses()[0], 1e-6 * one.losses()[0]);
  EXPECT_NEAR(four.norms()[0], one.norms()[0], 1e-6 * one.norms()[0]);
}

// Three of eight sequences, three and two: the mean is that of all targets, not of the ranks' means.
TEST(TrainingStep, in_fast_mode_weighs_every_target_alike_where_ranks_do_not_divide_the_batch) {
  Config config = small_run::config();
  config.train.reduction = Reduction::fast;
  const Outcome one = train(config, 1);
  for (const int ranks : {3, 5, 7}) {
    for (const std::int64_t sharding : {0, 1}) {
      config.train.sharding = sharding;
      const Outcome uneven = train(config, ranks, {.delays = 2});
      SCOPED_TRACE(ranks);
      for (std::size_t step = 0; step < one.steps.size(); ++step) {
        EXPECT_EQ(uneven.steps[step].targets, one.steps[step].targets);
        EXPECT_NEAR(uneven.losses()[step], one.losses()[step], 1e-5 * one.losses()[step]);
        EXPECT_NEAR(uneven.norms()[step], one.norms()[step], 1e-4 * one.norms()[step]);
      }
    }
  }
}

TEST(TrainingStep, sends_exactly_the_bytes_of_the_plan) {
  for (const std::int64_t sharding : {0, 1})
    for (const int ranks : {1, 2, 3}) {
      Config config = small_run::config();
      config.train.sharding = sharding;
      run_ranks(ranks, [&](Communicator& comm) {
        set_thread_count(1);
        MemoryAccount account;
        const RunPlan plan = make_run_plan(config, ranks, comm.rank(), 1, 0);
        Machine machine(cpu_device(), account);
        ModelState state(plan, config, machine);
        state.initialise(plan, 1);
        Prefetch prefetch = small_run::prefetch(config, account);
        Position position;
        TrainingStep training(config, plan, state, {comm, comm}, position);
        for (std::int64_t step = 0; step < 2; ++step) {
          const std::uint64_t before = comm.bytes_sent();
          training.request(prefetch, step);
          training.start(prefetch, 1e-3);
          training.finish(position);
          training.settle();
          EXPECT_EQ(comm.bytes_sent() - before, plan.bytes_sent_per_step)
              << "rank " << comm.rank() << " of " << ranks << ", sharding " << sharding;
        }
      });
    }
}

TEST(TrainingStep, takes_exactly_the_memory_of_the_plan) {
  for (const std::int64_t sharding : {0, 1})
    for (const int ranks : {1, 3}) {
      Config config = small_run::config();
      config.run.precision = Precision::bf16;
      config.train.sharding = sharding;
      run_ranks(ranks, [&](Communicator& comm) {
        MemoryAccount account;
        const std::uint64_t ring = Prefetch::memory(micro_batch_fields(config), prefetch_depth);
        const RunPlan plan = make_run_plan(config, ranks, comm.rank(), 1, ring);
        Machine machine(cpu_device(), account);
        ModelState state(plan, config, machine);
        Prefetch prefetch(
            micro_batch_fields(config), [](std::int64_t, std::int64_t, Batch&) {}, account, prefetch_depth,
            config.train.micro_batch);
        const TrainingStep training(config, plan, state, {comm, comm}, {});
        for (std::size_t k = 0; k < memory_kinds; ++k) {
          const auto kind = static_cast<MemoryKind>(k);
          // The communicator's own buffer is in another account here.
          const std::uint64_t elsewhere = kind == MemoryKind::communication && ranks > 1
                                              ? Buffer::counted(AsyncCommunicator::staging_bytes)
                                              : 0;
          EXPECT_EQ(account.now(kind) + elsewhere, plan.memory[k])
              << name_of(kind) << " of " << ranks << " ranks, sharding " << sharding;
        }
      });
    }
}

// The state of the other optimizer, under its own name.
TEST(TrainingStep, by_sgd_gives_the_bits_of_one_rank_and_keeps_a_momentum) {
  Config config = small_run::config();
  config.optimizer.kind = OptimizerKind::sgd;
  config.optimizer.lr = 0.5;
  config.optimizer.nesterov = true;
  const Outcome expected = train(config, 1);
  EXPECT_NE(expected.losses().back(), expected.losses().front());
  EXPECT_TRUE(expected.hashes.contains("sgd.momentum/norm.weight"));
  EXPECT_FALSE(expected.hashes.contains("adam.m/norm.weight"));
  for (const std::int64_t sharding : {0, 1}) {
    config.train.sharding = sharding;
    expect_same_bits(train(config, 3, {.delays = 3}), expected);
  }
  config.optimizer.momentum = 0;
  config.optimizer.nesterov = false;
  for (const auto& [name, hash] : train(config, 2).hashes) EXPECT_TRUE(name.starts_with("master/")) << name;
}

// What a skipped step leaves: everything as it was, but for the position in the data.
void expect_third_step_skipped(const Outcome& outcome, std::int64_t steps) {
  for (std::int64_t step = 0; step < steps; ++step)
    EXPECT_EQ(outcome.steps[static_cast<std::size_t>(step)].skipped, step == 2) << step;
  EXPECT_EQ(outcome.position.step, steps);
  EXPECT_EQ(outcome.position.updates, steps - 1);
}

TEST(TrainingStep, without_a_single_target_is_skipped) {
  Config config = small_run::config();
  const auto none_in_third = [&](int, std::int64_t slot, std::int64_t count, Batch& batch) {
    small_run::fill(config, slot, count, batch);
    if (slot / config.train.batch != 2) return;
    std::ranges::fill(batch.i32("targets"), ignored_target);
    batch.valid_targets = 0;
  };
  const Outcome all = train(config, 2, {.delays = 1, .fill = none_in_third});
  expect_third_step_skipped(all, 4);
  EXPECT_EQ(all.steps[2].targets, 0);
  EXPECT_EQ(all.steps[2].loss, 0);
  EXPECT_TRUE(std::isfinite(all.steps[3].loss));

  config.train.steps = 3;
  const Outcome skipped_last = train(config, 2, {.fill = none_in_third});
  config.train.steps = 2;
  EXPECT_EQ(skipped_last.hashes, train(config, 2).hashes);
}

// A weight that is not finite makes the loss so; put right again, training goes on as if nothing had been.
TEST(TrainingStep, with_a_loss_that_is_not_finite_is_skipped) {
  for (const float poison :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    Config config = small_run::config();
    const auto poison_third = [&, kept = std::array<float, 2>{}](int rank, std::int64_t step, const RunPlan&,
                                                                 ModelState& state) mutable {
      float& weight = state.master.as<float>()[5];
      if (step == 2) kept[static_cast<std::size_t>(rank)] = std::exchange(weight, poison);
      if (step == 3) weight = kept[static_cast<std::size_t>(rank)];
    };
    const Outcome outcome = train(config, 2, {.before_step = poison_third});
    expect_third_step_skipped(outcome, 4);
    EXPECT_FALSE(std::isfinite(outcome.steps[2].loss));
    EXPECT_FALSE(outcome.steps[2].clipped);
    EXPECT_GT(outcome.steps[2].targets, 0);

    // The step that was skipped had no other effect than to consume its samples.
    const auto other_samples = [&](int, std::int64_t slot, std::int64_t count, Batch& batch) {
      small_run::fill(config, slot, count, batch);
      if (slot / config.train.batch != 2) return;
      std::ranges::fill(batch.i32("targets"), ignored_target);
      batch.valid_targets = 0;
    };
    EXPECT_EQ(outcome.hashes, train(config, 2, {.fill = other_samples}).hashes);
  }
}

// A huge head behind a tiny norm: the logits are moderate, but backward multiplies by the head alone.
TEST(TrainingStep, with_a_gradient_that_overflows_is_skipped_though_its_loss_is_finite) {
  Config config = small_run::config();
  config.train.steps = 1;
  config.model.tied = false;
  const auto scale = [](int, std::int64_t, const RunPlan& plan, ModelState& state) {
    for (const Parameter& parameter : plan.parameters()) {
      const auto values = state.master.as<float>().subspan(static_cast<std::size_t>(parameter.offset),
                                                           static_cast<std::size_t>(parameter.elements()));
      if (parameter.name == "norm.weight") std::ranges::fill(values, 1e-37f);
      if (parameter.name == "head.weight")
        for (float& value : values) value = value == 0 ? 0 : std::copysign(1e38f, value);
    }
  };
  const Outcome outcome = train(config, 2, {.before_step = scale});
  EXPECT_TRUE(std::isfinite(outcome.steps[0].loss)) << outcome.steps[0].loss;
  EXPECT_FALSE(std::isfinite(outcome.steps[0].grad_norm)) << outcome.steps[0].grad_norm;
  EXPECT_TRUE(outcome.steps[0].skipped);
  EXPECT_EQ(outcome.position.updates, 0);
}

TEST(TrainingStep, tells_all_ranks_when_one_is_asked_to_stop) {
  const Outcome outcome = train(small_run::config(), 3,
                                {.stop = [](int rank, std::int64_t step) { return rank == 2 && step == 1; }});
  for (std::size_t step = 0; step < 4; ++step) EXPECT_EQ(outcome.steps[step].stop, step == 1) << step;
}

TEST(TrainingStep, ends_every_rank_with_the_error_of_the_one_that_cannot_read) {
  for (const int failing_micro_batch : {0, 1, 2}) {
    const Config config = small_run::config();
    std::atomic<int> told = 0, printed = 0;
    const auto fail_on_rank_1 = [&](int rank, std::int64_t slot, std::int64_t count, Batch& batch) {
      // Rank 1 of three runs the leaves 3, 4 and 5 of a step.
      if (rank == 1 && slot == config.train.batch + 3 + failing_micro_batch)
        throw UserError("train-00003.h5 ends early: prepare the data again");
      small_run::fill(config, slot, count, batch);
    };
    run_ranks(3, [&](Communicator& comm) {
      set_thread_count(1);
      MemoryAccount account;
      const RunPlan plan = make_run_plan(config, 3, comm.rank(), 1, 0);
      Machine machine(cpu_device(), account, std::make_unique<shaken::DelayedStream>(5, 1));
      ModelState state(plan, config, machine);
      state.initialise(plan, 1);
      Prefetch prefetch(
          micro_batch_fields(config),
          [&](std::int64_t slot, std::int64_t count, Batch& batch) {
            fail_on_rank_1(comm.rank(), slot, count, batch);
          },
          account, prefetch_depth, config.train.micro_batch);
      Position position;
      TrainingStep training(config, plan, state, {comm, comm}, position);
      training.request(prefetch, 0);
      training.start(prefetch, 1e-3);
      EXPECT_NO_THROW(training.finish(position));
      training.request(prefetch, 1);
      try {
        training.start(prefetch, 1e-3);
        training.finish(position);
      } catch (const UserError& error) {
        EXPECT_STREQ(error.what(), "train-00003.h5 ends early: prepare the data again");
        ++told;
        printed += is_printed_here(error) ? 1 : 0;
        EXPECT_EQ(is_printed_here(error), comm.rank() == 1);
      }
      EXPECT_EQ(position.step, 1);
    });
    EXPECT_EQ(told, 3);
    EXPECT_EQ(printed, 1);
  }
}

// Else the messages still come when their memory has been given back.
TEST(TrainingStep, ends_when_the_parameters_that_nobody_waited_for_have_been_gathered) {
  const Config config = small_run::config();
  run_ranks(2, [&](Communicator& comm) {
    set_thread_count(1);
    MemoryAccount account;
    Machine machine(cpu_device(), account);
    const RunPlan plan = make_run_plan(config, 2, comm.rank(), 1, 0);
    ModelState state(plan, config, machine);
    state.initialise(plan, 1);
    shaken::LateCommunicator late(comm, std::chrono::milliseconds(20));
    Prefetch prefetch = small_run::prefetch(config, account);
    Position position;
    {
      TrainingStep training(config, plan, state, {late, late}, position);
      training.request(prefetch, 0);
      training.start(prefetch, 1e-2);
      training.finish(position);
    }
    EXPECT_NO_THROW(check_replicas(state, comm));
    late.drain();
    comm.barrier("end").wait();
  });
}

}  // namespace
}  // namespace muster
