// What a model writes is text, whatever bytes it draws.

#include "trainer/generate/written_text.hpp"

#include <gtest/gtest.h>

#include "core/text.hpp"

namespace muster {
namespace {

std::string written(std::string_view bytes, bool on_terminal = false) {
  WrittenText text(on_terminal);
  std::string all;
  for (const char byte : bytes) all += text.add(std::string_view(&byte, 1));
  return all + text.end();
}

TEST(WrittenText, keeps_characters_whose_bytes_come_one_by_one) {
  const std::string text = "plain caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xed\x9f\xbf \xf4\x8f\xbf\xbf";
  EXPECT_EQ(written(text), text);
}

TEST(WrittenText, is_utf8_whatever_the_bytes_are) {
  std::string bytes;
  for (unsigned i = 0; i < 40'000; ++i) bytes += static_cast<char>(i * 2654435761u >> 24);
  EXPECT_FALSE(is_utf8(bytes));
  EXPECT_TRUE(is_utf8(written(bytes)));
  EXPECT_EQ(written("caf\xe9s"), "caf\xef\xbf\xbds");
  EXPECT_EQ(written("cut \xe2\x82"), "cut \xef\xbf\xbd\xef\xbf\xbd");
}

TEST(WrittenText, does_not_hold_back_what_is_decided) {
  WrittenText text(false);
  EXPECT_EQ(text.add("a\xe2"), "a");
  EXPECT_EQ(text.add("\x28"), "\xef\xbf\xbd(");
}

TEST(WrittenText, shows_control_characters_on_a_terminal) {
  EXPECT_EQ(written("\033]0;title\a\tok\n", true), "\\x1b]0;title\\x07\tok\n");
  EXPECT_EQ(written("\033[2J"), "\033[2J");
}

}  // namespace
}  // namespace muster
