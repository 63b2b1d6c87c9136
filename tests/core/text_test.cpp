#include "core/text.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <limits>
#include <string>

namespace muster {
namespace {

TEST(Text, of_well_formed_characters_is_utf8) {
  for (const char* text :
       {"", "plain", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_utf8(text)) << text;
}

TEST(Text, that_is_cut_overlong_a_surrogate_or_beyond_unicode_is_not_utf8) {
  for (const char* text : {"caf\xe9", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\x80", "\xc0\xaf", "\xe0\x80\xaf",
                           "\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80"})
    EXPECT_FALSE(is_utf8(text)) << text;
}

TEST(Text, is_a_number_only_if_all_of_it_is_one_that_fits) {
  EXPECT_EQ(parse_number<std::int64_t>("-12"), -12);
  EXPECT_EQ(parse_number<std::int64_t>("010"), 10);
  EXPECT_EQ(parse_number<double>("3e-4"), 3e-4);
  for (const char* text : {"", " 1", "1 ", "0x10", "1e3", "99999999999999999999", "1.5", "+1", "one"})
    EXPECT_EQ(parse_number<std::int64_t>(text), std::nullopt) << text;
  EXPECT_EQ(parse_number<std::uint32_t>("-1"), std::nullopt);
  EXPECT_EQ(parse_number<double>("1e999"), std::nullopt);
}

TEST(Text, without_controls_moves_no_cursor) {
  EXPECT_EQ(without_controls("a\033[2Jb\r\n\x7f"), "a\\x1b[2Jb\\x0d\\x0a\\x7f");
  EXPECT_EQ(without_controls("tab\tline\n", "\t\n"), "tab\tline\n");
  EXPECT_EQ(without_controls("caf\xc3\xa9 \xe9 \xc2\x9b"), "caf\xc3\xa9 \\xe9 \\xc2\\x9b");
}

TEST(Text, that_is_long_is_quoted_by_its_ends) {
  const std::string text = "begin" + std::string(50'000, '.') + "end";
  const std::string quoted = quotable(text);
  EXPECT_LE(quoted.size(), 400u);
  EXPECT_EQ(quoted.substr(0, 5), "begin");
  EXPECT_EQ(quoted.substr(quoted.size() - 3), "end");
  EXPECT_EQ(quotable("short"), "short");
  std::string accents;
  for (int i = 0; i < 1000; ++i) accents += "\xc3\xa9";
  for (const std::size_t most : {399u, 400u, 401u}) EXPECT_TRUE(is_utf8(quotable(accents, most)));
  EXPECT_EQ(quotable(accents).find('\\'), std::string::npos);
}

TEST(Text, of_a_number_that_is_none_has_no_sign) {
  EXPECT_EQ(fmt::format("{}", plain_nan(-std::numeric_limits<double>::quiet_NaN())), "nan");
  EXPECT_EQ(plain_nan(-1.5), -1.5);
}

}  // namespace
}  // namespace muster
