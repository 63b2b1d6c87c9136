#include "core/json_text.hpp"

#include <gtest/gtest.h>
#include <string>

namespace muster {
namespace {

TEST(JsonDepth, counts_what_lies_in_each_other_and_not_what_stands_in_strings) {
  EXPECT_FALSE(nests_deeper_than("", 0));
  EXPECT_FALSE(nests_deeper_than("7", 0));
  EXPECT_FALSE(nests_deeper_than(R"([[1], [2], {"a": [3]}])", 3));
  EXPECT_TRUE(nests_deeper_than(R"([[1], [2], {"a": [3]}])", 2));
  EXPECT_FALSE(nests_deeper_than(R"({"[[[[": "{{{{\"[[[["})", 1));
  EXPECT_FALSE(nests_deeper_than(R"(["never closed [[[[)", 1));
  EXPECT_FALSE(nests_deeper_than(R"(["\)", 1));
  EXPECT_TRUE(nests_deeper_than(std::string(1 << 20, '['), 64));
}

TEST(JsonSeal, a_change_of_any_byte_breaks_it) {
  const std::string whole = sealed("{\n\"a\": 1");
  ASSERT_EQ(seal_of(whole), Seal::holds);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string other = whole;
    other[at] = static_cast<char>(other[at] ^ 1);
    EXPECT_NE(seal_of(other), Seal::holds) << at;
    EXPECT_NE(seal_of(whole.substr(0, at)), Seal::holds) << at;
  }
  EXPECT_EQ(seal_of("{}"), Seal::missing);
  EXPECT_EQ(seal_of(""), Seal::missing);
}

}  // namespace
}  // namespace muster
