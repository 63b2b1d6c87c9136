#include "core/error.hpp"

#include <gtest/gtest.h>

namespace muster {
namespace {

TEST(Error, a_defect_names_its_file_from_the_root_of_the_tree) {
  const int line = __LINE__ + 2;
  try {
    check(false, "the sky has fallen");
    FAIL();
  } catch (const Defect& defect) {
    EXPECT_EQ(defect.what(), "tests/core/error_test.cpp:" + std::to_string(line) + ": the sky has fallen");
  }
}

}  // namespace
}  // namespace muster
