// Steps that changed no parameter, and when they are too many.

#include "trainer/loop/skipped_steps.hpp"

#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

#include "tests/data/scratch.hpp"

namespace muster {
namespace {

StepResult ended(std::int64_t targets, bool skipped) {
  StepResult result;
  result.targets = targets;
  result.skipped = skipped;
  return result;
}

const StepResult taken = ended(5, false), not_finite = ended(5, true), empty = ended(0, true);

void count(SkippedSteps& steps, const StepResult& result, std::int64_t times) {
  for (std::int64_t i = 0; i < times; ++i) steps.count(result);
}

TEST(SkippedSteps, are_told_by_their_cause) {
  SkippedSteps steps;
  count(steps, taken, 3);
  EXPECT_EQ(steps.summary(), std::vector<std::string>());
  count(steps, not_finite, 2);
  count(steps, empty, 1);
  EXPECT_EQ(steps.summary(),
            (std::vector<std::string>{"2 steps were skipped: their loss or gradient was not finite",
                                      "1 steps were skipped: their batches held no target"}));
}

TEST(SkippedSteps, diverge_until_a_step_is_taken_again) {
  SkippedSteps steps;
  EXPECT_FALSE(steps.diverging());
  count(steps, not_finite, 1);
  EXPECT_TRUE(steps.diverging());
  count(steps, taken, 1);
  EXPECT_FALSE(steps.diverging());
}

TEST(SkippedSteps, in_a_row_end_a_run_and_others_do_not) {
  for (const auto& [result, why] : {std::pair{not_finite, "has diverged"}, {empty, "held no target"}}) {
    SkippedSteps steps;
    count(steps, result, 99);
    count(steps, taken, 1);
    count(steps, result, 99);
    EXPECT_FALSE(steps.wasted());
    EXPECT_NO_THROW(steps.refuse_to_waste(199));
    count(steps, result, 1);
    EXPECT_TRUE(steps.wasted());
    EXPECT_TRUE(tells(message_of([&] { steps.refuse_to_waste(200); }), {"last 100 steps, to 200", why}));
  }
}

}  // namespace
}  // namespace muster
