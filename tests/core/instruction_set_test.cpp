#include "core/instruction_set.hpp"

#include <gtest/gtest.h>
#include <string>

#include "core/error.hpp"

namespace muster {
namespace {

TEST(InstructionSet, the_best_is_chosen_unless_a_lower_one_is_wanted) {
  const std::vector<InstructionSet> has = {InstructionSet::baseline, InstructionSet::avx2,
                                           InstructionSet::avx512};
  EXPECT_EQ(choose_instruction_set(has, ""), InstructionSet::avx512);
  EXPECT_EQ(choose_instruction_set(has, "avx2"), InstructionSet::avx2);
  EXPECT_EQ(choose_instruction_set(has, spelling(InstructionSet::baseline)), InstructionSet::baseline);
}

TEST(InstructionSet, one_that_is_unknown_or_that_the_processor_lacks_is_refused_with_what_it_has) {
  const std::vector<InstructionSet> has = {InstructionSet::baseline, InstructionSet::avx2};
  for (const char* wanted : {"avx512", "AVX2", "fast"}) {
    try {
      choose_instruction_set(has, wanted);
      ADD_FAILURE() << wanted << " was taken";
    } catch (const UserError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(wanted), std::string::npos) << message;
      EXPECT_NE(message.find(std::string(spelling(InstructionSet::baseline)) + ", avx2"), std::string::npos)
          << message;
    }
  }
}

TEST(InstructionSet, a_processor_has_the_baseline_and_no_set_without_those_before_it) {
  const std::vector<InstructionSet> has = instruction_sets_of_processor();
  ASSERT_FALSE(has.empty());
  for (std::size_t i = 0; i < has.size(); ++i) EXPECT_EQ(static_cast<std::size_t>(has[i]), i);
}

}  // namespace
}  // namespace muster
