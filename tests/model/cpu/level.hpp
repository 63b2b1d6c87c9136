// Tests in this folder are compiled once for each instruction set, as model/ops/cpu is; their suites bear its name.
#pragma once

#include <cstddef>
#include <gtest/gtest.h>

#include "core/instruction_set.hpp"
#include "model/ops/cpu/isa.hpp"

#define MUSTER_JOIN_(a, b) a##_##b
#define MUSTER_JOIN(a, b) MUSTER_JOIN_(a, b)
// Vector becomes Vector_avx2. gtest's own macros do not expand what they are given.
#define OF_LEVEL(suite) MUSTER_JOIN(suite, MUSTER_ISA)
#define EXPANDED_TEST_P(suite, name) TEST_P(suite, name)
#define EXPANDED_INSTANTIATE(prefix, suite, ...) INSTANTIATE_TEST_SUITE_P(prefix, suite, __VA_ARGS__)

namespace muster::cpu::MUSTER_ISA {

inline void skip_without_instruction_set() {
  const std::size_t sets_in_use = static_cast<std::size_t>(instruction_set()) + 1;
  if (sets_in_use <= MUSTER_CPU_LEVEL)
    GTEST_SKIP() << spelling(instruction_set()) << " is in use, which is less than "
                 << spelling(static_cast<InstructionSet>(MUSTER_CPU_LEVEL));
}

class OfLevel : public ::testing::Test {
 protected:
  void SetUp() override { skip_without_instruction_set(); }
};

}  // namespace muster::cpu::MUSTER_ISA
