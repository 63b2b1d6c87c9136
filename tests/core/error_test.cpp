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

TEST(Error, what_is_quoted_is_cut_and_cannot_move_a_cursor) {
  const std::string message =
      UserError("{}: no {} here: look elsewhere", "a\033[2Jb", std::string(50'000, 'x')).what();
  EXPECT_LE(message.size(), 500u);
  EXPECT_EQ(message.substr(0, 14), "a\\x1b[2Jb: no ");
  EXPECT_NE(message.find("x...x"), std::string::npos);
  EXPECT_NE(message.find(" here: look elsewhere"), std::string::npos);
}

}  // namespace
}  // namespace muster
