// What a step knows of itself on its device: scalars, the reports of its leaves, the outcome.
#include "model/update/outcome.hpp"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <vector>

#include "tests/model/update/flat_test.hpp"

namespace muster {
namespace {

using testing::OnDevice;

// The sum over the complete binary tree over `size` leaves, a power of two, of which those behind the last value are
// missing.
double tree_sum(const std::vector<double>& values, std::size_t begin, std::size_t size) {
  if (size == 1) return values[begin];
  const double left = tree_sum(values, begin, size / 2);
  return begin + size / 2 < values.size() ? left + tree_sum(values, begin + size / 2, size / 2) : left;
}
double tree_sum(const std::vector<double>& values) {
  std::size_t size = 1;
  while (size < values.size()) size *= 2;
  return tree_sum(values, 0, size);
}

// Of very different sizes, so that another order of summing has other bits.
std::vector<double> uneven_values(std::size_t count, std::uint64_t seed) {
  std::vector<double> values = reference::random_values(static_cast<std::int64_t>(count), seed);
  for (double& value : values) value = std::exp(4 * value);
  return values;
}

class Outcome : public testing::FlatTest {
 protected:
  StepOutcome finish(const std::vector<LeafReport>& leaves, const std::vector<double>& squares,
                     const OutcomeRule& rule = {}, const StepOutcome& before = {}) {
    const OnDevice<LeafReport> reports(device(), leaves);
    const OnDevice<double> sums(device(), squares);
    const OnDevice<StepOutcome> outcome(device(), std::vector{before});
    device().run([&](NativeStream stream) {
      kernels().finish_step(stream, rule, reports.span(), sums.span(), outcome.data());
    });
    return outcome.values()[0];
  }
};

TEST_P(Outcome, scalars_are_stored_whole) {
  const OnDevice<StepScalars> to(device(), 2);
  device().run([&](NativeStream stream) {
    kernels().store_scalars(stream, {.seed = 0x123456789abcdef, .step = 2, .first_slot = 3, .kv_length = 4},
                            to.data());
  });
  const std::vector<StepScalars> stored = to.values();
  EXPECT_EQ(stored[0].seed, 0x123456789abcdefu);
  EXPECT_EQ(stored[0].step, 2u);
  EXPECT_EQ(stored[0].first_slot, 3u);
  EXPECT_EQ(stored[0].kv_length, 4u);
  EXPECT_EQ(stored[1].seed, 0u) << "beside the scalars";
}

TEST_P(Outcome, a_report_starts_anew_and_then_adds_up) {
  const OnDevice<LeafReport> report(device(), std::vector{LeafReport{99, 99, 1, 1}});
  const OnDevice<double> loss(device(), std::vector{2.5});
  const auto add = [&](LeafReport more, const double* more_loss, bool first) {
    device().run(
        [&](NativeStream stream) { kernels().add_report(stream, more, more_loss, first, report.data()); });
    return report.values()[0];
  };
  LeafReport got = add({1.25, 10, 0, 0}, loss.data(), true);
  EXPECT_EQ(got.loss, 3.75);
  EXPECT_EQ(got.targets, 10);
  EXPECT_EQ(got.stop, 0u);
  EXPECT_EQ(got.failed, 0u);
  got = add({0.5, 7, 1, 0}, nullptr, false);
  EXPECT_EQ(got.loss, 4.25);
  EXPECT_EQ(got.targets, 17);
  EXPECT_EQ(got.stop, 1u);
  got = add({0, 0, 0, 1}, nullptr, false);
  EXPECT_EQ(got.targets, 17);
  EXPECT_EQ(got.stop, 1u) << "stays";
  EXPECT_EQ(got.failed, 1u);
}

TEST_P(Outcome, losses_are_summed_over_the_tree_of_leaves) {
  for (const std::size_t count : {1u, 2u, 3u, 5u, 8u, 31u, 32u, 33u, 64u, 65u, 101u, 256u, 300u}) {
    const std::vector<double> losses = uneven_values(count, count);
    std::vector<LeafReport> leaves;
    std::int64_t targets = 0;
    for (const double loss : losses) {
      leaves.push_back({loss, static_cast<std::int64_t>(leaves.size()) + 1});
      targets += leaves.back().targets;
    }
    const StepOutcome outcome = finish(leaves, {1.0});
    EXPECT_EQ(outcome.targets, targets) << count;
    EXPECT_EQ(outcome.loss, tree_sum(losses) / static_cast<double>(targets)) << count;
    EXPECT_EQ(outcome.skipped, 0u) << count;
  }
}

TEST_P(Outcome, squares_are_summed_over_the_tree_of_blocks) {
  for (const std::size_t count :
       {1u, 2u, 3u, 7u, 8u, 9u, 255u, 257u, 2047u, 2048u, 2049u, 5000u, 3u * 2048u + 1u}) {
    const std::vector<double> squares = uneven_values(count, count);
    EXPECT_EQ(finish({{1, 3}}, squares).grad_norm, std::sqrt(tree_sum(squares)) / 3.0) << count;
  }
  EXPECT_EQ(finish({{1, 3}}, {}).grad_norm, 0);
}

TEST_P(Outcome, a_step_is_skipped_that_has_no_targets_or_failed_or_is_not_finite) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const StepOutcome before{.updates = 6};
  const auto expect_skipped = [&](const char* why, const std::vector<LeafReport>& leaves,
                                  const std::vector<double>& squares) {
    const StepOutcome outcome = finish(leaves, squares, {.clip = 1e-9}, before);
    EXPECT_EQ(outcome.skipped, 1u) << why;
    EXPECT_EQ(outcome.clipped, 0u) << why;
    EXPECT_EQ(outcome.updates, 6) << why;
  };
  expect_skipped("no targets", {{0, 0}, {0, 0}}, {1.0, 2.0});
  expect_skipped("no leaves", {}, {1.0});
  expect_skipped("a leaf failed", {{1, 2}, {1, 2, 0, 1}, {1, 2}}, {1.0});
  expect_skipped("an infinite loss", {{1, 2}, {infinity, 2}}, {1.0});
  expect_skipped("a loss that is no number", {{nan, 2}, {1, 2}}, {1.0});
  expect_skipped("an infinite gradient", {{1, 2}}, {1.0, infinity, 1.0});
  expect_skipped("a gradient that is no number", {{1, 2}}, {1.0, 1.0, nan});

  const StepOutcome stopped = finish({{1, 2}, {1, 2, 1, 0}, {1, 2}}, {1.0}, {}, before);
  EXPECT_EQ(stopped.stop, 1u);
  EXPECT_EQ(stopped.skipped, 0u) << "a step that is asked to stop is finished";
  EXPECT_EQ(stopped.failed, 0u);
  EXPECT_EQ(finish({{1, 2}, {1, 2, 0, 1}}, {1.0}).failed, 1u);
}

TEST_P(Outcome, gradients_are_scaled_by_the_targets_and_clipped_to_the_norm) {
  const std::vector<LeafReport> leaves = {{1, 3}, {1, 5}};
  const std::vector<double> squares = {256.0, 320.0};  // norm 24 / 8 = 3
  StepOutcome outcome = finish(leaves, squares);
  EXPECT_EQ(outcome.grad_norm, 3);
  EXPECT_EQ(outcome.gradient_scale, 0.125f);
  EXPECT_EQ(outcome.clipped, 0u);
  outcome = finish(leaves, squares, {.clip = 1.5});
  EXPECT_EQ(outcome.gradient_scale, static_cast<float>(1.5 / (3 + 1e-6) / 8));
  EXPECT_EQ(outcome.clipped, 1u);
  outcome = finish(leaves, squares, {.clip = 4});
  EXPECT_EQ(outcome.gradient_scale, 0.125f);
  EXPECT_EQ(outcome.clipped, 0u);
}

TEST_P(Outcome, bias_corrections_follow_the_updates_that_were_made) {
  const OutcomeRule rule{.averages = {0.9, 0.999}};
  StepOutcome outcome;
  for (int step = 1; step <= 6; ++step) {
    const bool skipped = step == 3;
    outcome = finish({{1, skipped ? 0 : 1}}, {1.0}, rule, outcome);
    const int updates = step < 3 ? step : step - 1;
    EXPECT_EQ(outcome.updates, updates);
    if (skipped) continue;
    // A power is off by two units in the last place of a number below 1 at most.
    EXPECT_NEAR(outcome.correction1, 1 - std::pow(0.9, updates), 4 * 0x1p-53) << step;
    EXPECT_NEAR(outcome.correction2, 1 - std::pow(0.999, updates), 4 * 0x1p-53) << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, Outcome, ::testing::ValuesIn(testing::compiled_backends()),
                         [](const auto& kind) { return testing::test_name_of(kind.param); });

}  // namespace
}  // namespace muster
