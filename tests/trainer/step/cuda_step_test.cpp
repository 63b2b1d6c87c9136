// The training step on GPUs: what the CPU computes, the same bits on any number of ranks. Without a GPU it runs in
// builds with the stand-in of tests/cuda_on_host.

#include <cstdlib>
#include <gtest/gtest.h>
#include <utility>

#include "tests/trainer/small_run.hpp"

namespace muster {
namespace {

using small_run::Disturbance;
using small_run::Outcome;
using small_run::train;

class CudaStep : public testing::Test {
 protected:
  void SetUp() override {
    setenv("CUDA_ON_HOST_DEVICES", "4", 1);  // of the stand-in: a GPU for each rank
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU";
  }
  static Outcome on_gpu(const Config& config, int ranks) {
    return train(config, ranks, {.device = DeviceKind::cuda});
  }
};

TEST_F(CudaStep, gives_the_losses_of_the_cpu_over_twenty_steps_with_dropout) {
  for (const auto& [family, ranks] : {std::pair{Family::gpt, 2}, std::pair{Family::llama, 1}}) {
    Config config = small_run::config(family);
    config.train.steps = 20;
    const Outcome expected = train(config, 1);
    const Outcome outcome = on_gpu(config, ranks);
    for (std::size_t step = 0; step < 20; ++step) {
      // f32 on both, sums in other orders: what such runs are promised to differ by at most.
      EXPECT_NEAR(outcome.losses()[step], expected.losses()[step], 1e-5 * expected.losses()[step])
          << "step " << step << " of " << ranks << " ranks";
    }
    EXPECT_EQ(outcome.position.updates, expected.position.updates);
    EXPECT_EQ(outcome.position.targets, expected.position.targets);
  }
}

TEST_F(CudaStep, gives_the_same_bits_on_any_number_of_ranks) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    Config config = small_run::config();
    config.train.steps = 2;
    config.run.precision = precision;
    const Outcome expected = on_gpu(config, 1);
    for (const auto& [ranks, sharding] : {std::pair{2, 0}, std::pair{3, 1}, std::pair{4, 1}}) {
      config.train.sharding = sharding;
      const Outcome outcome = on_gpu(config, ranks);
      EXPECT_EQ(outcome.losses(), expected.losses()) << ranks << " ranks, sharding " << sharding;
      EXPECT_EQ(outcome.norms(), expected.norms()) << ranks << " ranks, sharding " << sharding;
      EXPECT_EQ(outcome.hashes, expected.hashes) << ranks << " ranks, sharding " << sharding;
    }
  }
}

TEST_F(CudaStep, in_fast_mode_differs_from_one_rank_by_rounding_only) {
  Config config = small_run::config();
  config.train.reduction = Reduction::fast;
  config.train.steps = 1;
  const Outcome one = on_gpu(config, 1), four = on_gpu(config, 4);
  EXPECT_NEAR(four.losses()[0], one.losses()[0], 1e-6 * one.losses()[0]);
  EXPECT_NEAR(four.norms()[0], one.norms()[0], 1e-6 * one.norms()[0]);
}

TEST_F(CudaStep, skips_a_step_without_targets_as_the_cpu_does) {
  const Config config = small_run::config();
  const auto none_in_third = [&](int, std::int64_t slot, std::int64_t count, Batch& batch) {
    small_run::fill(config, slot, count, batch);
    if (slot / config.train.batch != 2) return;
    std::ranges::fill(batch.i32("targets"), ignored_target);
    batch.valid_targets = 0;
  };
  const Outcome outcome = train(config, 2, {.device = DeviceKind::cuda, .fill = none_in_third});
  for (std::size_t step = 0; step < 4; ++step) EXPECT_EQ(outcome.steps[step].skipped, step == 2) << step;
  EXPECT_EQ(outcome.position.updates, 3);
}

}  // namespace
}  // namespace muster
