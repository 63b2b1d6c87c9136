#include "data/tokenizer.hpp"

#include "tests/data/scratch.hpp"

namespace muster {
namespace {

TEST(Tokenizer, bytes_give_back_any_text) {
  const auto tokenizer = make_tokenizer("bytes");
  std::string text;
  for (int i = 0; i < 256; ++i) text += static_cast<char>(i);
  std::vector<std::uint32_t> tokens;
  tokenizer->encode(text, tokens);
  ASSERT_EQ(tokens.size(), 256u);
  for (std::uint32_t i = 0; i < 256; ++i) EXPECT_EQ(tokens[i], i);
  tokens.push_back(*tokenizer->end_token());
  EXPECT_EQ(tokenizer->decode(tokens), text);
  EXPECT_EQ(tokenizer->vocabulary(), 257u);
  EXPECT_EQ(tokenizer->end_token(), 256u);
  const std::vector<std::uint32_t> unknown = {65, 300};
  EXPECT_EQ(tokenizer->decode(unknown), "A\xEF\xBF\xBD");
}

TEST(Tokenizer, a_description_makes_an_equal_one) {
  const auto bytes = make_tokenizer("bytes");
  const auto again = tokenizer_from_description(bytes->describe(), "x");
  EXPECT_EQ(again->describe(), bytes->describe());
  EXPECT_EQ(again->hash(), bytes->hash());
  const auto ids = make_id_tokenizer(50257, 50256);
  EXPECT_EQ(tokenizer_from_description(ids->describe(), "x")->end_token(), 50256u);
  EXPECT_NE(ids->hash(), bytes->hash());
  EXPECT_EQ(tokenizer_from_description(make_id_tokenizer(9, {})->describe(), "x")->end_token(), std::nullopt);
}

TEST(Tokenizer, of_token_ids_reads_and_writes_numbers) {
  const auto tokenizer = make_id_tokenizer(100, 99);
  std::vector<std::uint32_t> tokens = {99};
  tokenizer->encode("", tokens);
  tokenizer->encode(" 7 98\n0", tokens);
  EXPECT_EQ(tokens, (std::vector<std::uint32_t>{99, 7, 98, 0}));
  EXPECT_EQ(tokenizer->decode(tokens), " 7 98 0");
  for (const char* text : {"a", "100", "-1", "1.5", "3,4", "99999999999999999999"})
    EXPECT_TRUE(tells(message_of([&] { tokenizer->encode(text, tokens); }), {text, "below 100"})) << text;
}

TEST(Tokenizer, unknown_ones_are_refused_by_name) {
  EXPECT_TRUE(tells(message_of([] { make_tokenizer("bpe"); }), {"'bpe'", "known is bytes"}));
  EXPECT_TRUE(
      tells(message_of([] { tokenizer_from_description("{", "some.json"); }), {"some.json", "restore"}));
  EXPECT_TRUE(tells(message_of([] { tokenizer_from_description(R"({"kind":"runes"})", "some.json"); }),
                    {"some.json", "runes", "newer version"}));
  for (const char* number : {"5e35", "4294967305", "-1", "9.5", "null"}) {
    const std::string odd = fmt::format(R"({{"end_token":{0},"kind":"ids","vocabulary":{0}}})", number);
    EXPECT_TRUE(
        tells(message_of([&] { tokenizer_from_description(odd, "some.json"); }), {"some.json", "restore"}));
  }
  EXPECT_TRUE(tells(message_of([] { make_id_tokenizer(10, 10); }), {"end token 10", "--end-token"}));
}

}  // namespace
}  // namespace muster
