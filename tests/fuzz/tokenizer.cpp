// A line that describes a tokenizer, and a text for it. What it encodes must come back.
#include "data/tokenizer.hpp"

#include <algorithm>
#include <vector>

#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  const std::size_t line = std::min(bytes.size(), bytes.find('\n'));
  const std::string text(bytes.substr(std::min(bytes.size(), line + 1)));
  const auto tokenizer = tokenizer_from_description(std::string(bytes.substr(0, line)), "input");
  std::vector<std::uint32_t> tokens, again;
  tokenizer->encode(text, tokens);
  for (const std::uint32_t token : tokens)
    check(token < tokenizer->vocabulary(), "a token that there is not");
  tokenizer->encode(tokenizer->decode(tokens), again);
  std::erase(tokens, tokenizer->end_token());  // is no text
  check(tokens == again, "tokens change when they are written and read");
}
