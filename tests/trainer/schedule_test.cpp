#include "trainer/schedule.hpp"

#include <gtest/gtest.h>

namespace muster {
namespace {

ScheduleConfig schedule(ScheduleKind kind, std::int64_t warmup, double final) {
  return {.kind = kind, .warmup = warmup, .final = final};
}

TEST(Schedule, warms_up_linearly_and_reaches_the_full_rate_at_its_last_step) {
  const auto s = schedule(ScheduleKind::constant, 4, 0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 2, 100, 1), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 2, 100, 3), 1.5);
  EXPECT_EQ(learning_rate(s, 2, 100, 4), 2);
  EXPECT_EQ(learning_rate(s, 2, 100, 5), 2);
  EXPECT_EQ(learning_rate(s, 2, 100, 100), 2);
}

TEST(Schedule, cosine_passes_the_values_of_its_formula) {
  const auto s = schedule(ScheduleKind::cosine, 10, 0.1);
  // By hand, lr = 1: p = 0, 1/3, 1/2, 2/3, 1 with cos(pi p) = 1, 1/2, 0, -1/2, -1.
  EXPECT_EQ(learning_rate(s, 1, 70, 10), 1);
  EXPECT_NEAR(learning_rate(s, 1, 70, 30), 0.775, 1e-15);
  EXPECT_NEAR(learning_rate(s, 1, 70, 40), 0.55, 1e-15);
  EXPECT_NEAR(learning_rate(s, 1, 70, 50), 0.325, 1e-15);
  EXPECT_NEAR(learning_rate(s, 1, 70, 70), 0.1, 1e-15);
}

TEST(Schedule, cosine_without_warm_up_equals_PyTorch_CosineAnnealingLR) {
  // torch.optim.lr_scheduler.CosineAnnealingLR(T_max=10, eta_min=0), base rate 0.3, after k scheduler steps:
  // eta_min + (base - eta_min) * (1 + cos(pi k / T_max)) / 2.
  const auto s = schedule(ScheduleKind::cosine, 0, 0);
  const double expected[] = {0.2926584774442731, 0.2713525491562421, 0.23816778784387097, 0.1963525491562421,
                             0.15};
  for (int k = 1; k <= 5; ++k) EXPECT_NEAR(learning_rate(s, 0.3, 10, k), expected[k - 1], 1e-15) << k;
}

TEST(Schedule, linear_falls_evenly_to_its_final_fraction) {
  const auto s = schedule(ScheduleKind::linear, 2, 0.5);
  EXPECT_EQ(learning_rate(s, 1, 12, 2), 1);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1, 12, 7), 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1, 12, 12), 0.5);
}

TEST(Schedule, stays_at_its_end_beyond_the_last_step) {
  for (const ScheduleKind kind : {ScheduleKind::cosine, ScheduleKind::linear}) {
    EXPECT_NEAR(learning_rate(schedule(kind, 0, 0.25), 1, 10, 15), 0.25, 1e-15);
  }
}

TEST(Schedule, a_warm_up_longer_than_the_run_only_rises) {
  const auto s = schedule(ScheduleKind::cosine, 100, 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1, 10, 10), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1, 10, 9), 0.09);
}

}  // namespace
}  // namespace muster
