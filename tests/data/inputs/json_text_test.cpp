#include "data/inputs/json_text.hpp"

#include <gtest/gtest.h>

namespace muster {
namespace {

// The text, or the fault in angle brackets.
std::string read(std::string_view line) {
  std::string text;
  const auto fault = text_of_json(line, text);
  return fault ? "<" + *fault + ">" : text;
}

TEST(JsonText, is_the_field_text_of_an_object) {
  EXPECT_EQ(read(R"({"text": "a"})"), "a");
  EXPECT_EQ(read("\t { \"id\" : 1 ,\"text\":\"a\" } \r"), "a");
  EXPECT_EQ(read(R"({"text": ""})"), "");
  EXPECT_EQ(read(R"({"text": "first", "text": "last"})"), "last");
  EXPECT_EQ(read("\xEF\xBB\xBF{\"text\": \"after a byte order mark\"}"), "after a byte order mark");
  EXPECT_EQ(read(R"({"t\u0065xt": "a key may be escaped"})"), "a key may be escaped");
}

TEST(JsonText, escapes_are_undone) {
  EXPECT_EQ(read(R"({"text": "\"\\\/\b\f\n\r\t"})"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(read(R"({"text": "\u0041\u00e9\u20AC\ud83d\ude00"})"), "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  EXPECT_EQ(read(R"({"text": "\u0000"})"), std::string(1, '\0'));
}

TEST(JsonText, half_of_a_surrogate_pair_becomes_the_replacement_character) {
  EXPECT_EQ(read(R"({"text": "a \ud83d b"})"), "a \xEF\xBF\xBD b");
  EXPECT_EQ(read(R"({"text": "\ude00"})"), "\xEF\xBF\xBD");
  EXPECT_EQ(read(R"({"text": "\ud83d"})"), "\xEF\xBF\xBD");
  EXPECT_EQ(read(R"({"text": "\ud83d\u0041"})"),
            "\xEF\xBF\xBD"
            "A");
  EXPECT_EQ(read(R"({"text": "\ud83d\ud83d\ude00"})"), "\xEF\xBF\xBD\xF0\x9F\x98\x80");
}

TEST(JsonText, other_fields_do_not_matter) {
  for (const char* other :
       {"NaN", "Infinity", "-Infinity", "1e999", "123456789012345678901234567890", "-0.5E+3", "null", "true",
        R"("\ud83d")", "[]", "{}", R"([1, [2, {"a": [{}]}], "]"])",
        R"({"text": "not this", "b": {"c": "}"}})", "\"latin \xE9\""}) {
    EXPECT_EQ(read(std::string(R"({"other": )") + other + R"(, "text": "a"})"), "a") << other;
    EXPECT_EQ(read(std::string(R"({"text": "a", "other": )") + other + "}"), "a") << other;
  }
  const std::string deep(1000000, '[');
  EXPECT_EQ(read(R"({"deep": )" + deep + std::string(deep.size(), ']') + R"(, "text": "a"})"), "a");
}

TEST(JsonText, faults_are_told_as_they_are) {
  EXPECT_EQ(read("{}"), "<has no field \"text\">");
  EXPECT_EQ(read(R"({"txt": "a"})"), "<has no field \"text\">");
  EXPECT_EQ(read(R"({"text": null})"), "<has a field \"text\" that is no string>");
  EXPECT_EQ(read(R"({"text": ["a"]})"), "<has a field \"text\" that is no string>");
  for (const char* line : {"", "1", "\"text\"", "[{\"text\": \"a\"}]", "plain text"})
    EXPECT_EQ(read(line), "<is no JSON object>") << line;
  for (const char* line :
       {"{", R"({"text)", R"({"text": )", R"({"text": "a)", R"({"text": "a\)", R"({"text": "\u12)",
        R"({"text": "a")", R"({"a": [1)", R"({"a": {"b")", R"({"a": 1,)"})
    EXPECT_EQ(read(line).find("<is no JSON object"), 0u) << line << ": " << read(line);
  EXPECT_EQ(read(R"({"text": "a"} x)"), "<is no JSON object from its byte 15 on>");
  EXPECT_EQ(read(R"({"text": "a",})"), "<is no JSON object from its byte 14 on>");
  EXPECT_EQ(read(R"({"text": "\x"})"), "<is no JSON object from its byte 12 on>");
  EXPECT_EQ(read(R"({"text": "\u00g0"})"), "<is no JSON object from its byte 13 on>");
  EXPECT_EQ(read("{\"text\": \"a\tb\"}"), "<is no JSON object from its byte 12 on>");
  EXPECT_EQ(read(R"({"a": [1}, "text": "a"})"), "<is no JSON object from its byte 9 on>");
  EXPECT_EQ(read(R"({"a": tru, "text": "a"})"), "<is no JSON object from its byte 7 on>");
  EXPECT_EQ(read(R"({"a": {"b"}, "text": "a"})"), "<is no JSON object from its byte 11 on>");
}

TEST(JsonText, text_that_is_no_utf8_is_a_fault_at_its_byte) {
  for (const char* bytes : {"\xE9", "\x80", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                            "\xF0\x80\x80\xAF", "\xFF", "\xE2\x82"})
    EXPECT_EQ(read(std::string(R"({"text": "caf)") + bytes + "\"}"),
              "<holds text that is no UTF-8, at its byte 14>");
  EXPECT_EQ(read("{\"text\": \"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF\"}"),
            "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF");
}

}  // namespace
}  // namespace muster
