#include "core/arithmetic_rate.hpp"

#include <gtest/gtest.h>

#include "core/parallel.hpp"
#include "tests/emulated.hpp"

namespace muster {
namespace {

TEST(ArithmeticRate, runs_that_were_disturbed_do_not_count_as_long_as_a_quarter_was_not) {
  std::vector<double> runs(100, 5.0);
  for (std::size_t i = 0; i < runs.size(); i += 4) runs[i] = 1.0;
  EXPECT_EQ(undisturbed_seconds(runs), 1.0);
  runs[0] = 0.9;  // nor does a single one that was faster than all others
  EXPECT_EQ(undisturbed_seconds(runs), 1.0);
  EXPECT_EQ(undisturbed_seconds({2.0}), 2.0);
}

TEST(ArithmeticRate, every_loop_that_the_processor_has_runs_and_takes_a_tenth_of_a_millisecond_or_so) {
  if (emulated()) GTEST_SKIP() << "an emulator's speed is not the processor's";
  for (const InstructionSet set : instruction_sets_of_processor())
    for (const DType type : {DType::f32, DType::bf16}) {
      const RegisterLoop loop = register_loop(set, type);
      const ArithmeticRate rate = measure_arithmetic(loop, 2e-3);
      EXPECT_GT(rate.per_core, 1e8) << spelling(set) << " " << name_of(type);
      EXPECT_GT(rate.cores, 0) << spelling(set) << " " << name_of(type);
      EXPECT_GT(loop.flops / rate.per_core, 1e-5) << spelling(set) << " " << name_of(type);
      EXPECT_LT(loop.flops / rate.per_core, 1e-2) << spelling(set) << " " << name_of(type);
    }
}

TEST(ArithmeticRate, no_set_is_much_slower_than_the_one_before_it) {
  const std::vector<InstructionSet> sets = instruction_sets_of_processor();
  for (const DType type : {DType::f32, DType::bf16}) {
    double before = 0;
    for (const InstructionSet set : sets) {
      const double now = measure_arithmetic(register_loop(set, type), 0.02).per_core;
      EXPECT_GT(now, 0.7 * before) << spelling(set) << " " << name_of(type);
      before = now;
    }
  }
}

// Each of them takes part, on however few cores; together they get no more than there is.
TEST(ArithmeticRate, threads_share_the_cores) {
  if (emulated()) GTEST_SKIP() << "an emulator's speed is not the processor's";
  const int before = thread_count();
  set_thread_count(1);
  const RegisterLoop loop = register_loop(instruction_set(), DType::f32);
  EXPECT_LE(measure_arithmetic(loop, 0.02).cores, 1.3);
  set_thread_count(4 * before);
  EXPECT_LE(measure_arithmetic(loop, 0.1).cores, 1.5 * before);
  set_thread_count(before);
}

}  // namespace
}  // namespace muster
