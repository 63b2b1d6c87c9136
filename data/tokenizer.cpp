#include "data/tokenizer.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/text.hpp"

namespace muster {
namespace {

using nlohmann::json;

// Nothing for other numbers, which the library would take for whole ones whether they fit or not.
std::optional<std::uint32_t> whole_number(const json& description, const char* key) {
  const auto found = description.find(key);
  if (found == description.end() || !found->is_number_unsigned() ||
      found->get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max())
    return std::nullopt;
  return found->get<std::uint32_t>();
}

constexpr std::string_view unknown_character = "\xEF\xBF\xBD";

class BytesTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "bytes"; }
  std::uint32_t vocabulary() const override { return 257; }
  std::optional<std::uint32_t> end_token() const override { return 256; }

  void encode(std::string_view text, std::vector<std::uint32_t>& tokens) const override {
    tokens.reserve(tokens.size() + text.size());
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  }

  std::string decode(std::span<const std::uint32_t> tokens) const override {
    std::string text;
    text.reserve(tokens.size());
    for (const std::uint32_t token : tokens) {
      if (token < 256) text += static_cast<char>(token);
      if (token > 256) text += unknown_character;
    }
    return text;
  }

  std::string describe() const override {
    return json{{"kind", "bytes"}, {"vocabulary", 257}, {"end_token", 256}}.dump();
  }
};

class IdTokenizer final : public Tokenizer {
 public:
  IdTokenizer(std::uint32_t vocabulary, std::optional<std::uint32_t> end_token)
      : vocabulary_(vocabulary), end_token_(end_token) {
    if (vocabulary == 0) throw UserError("a vocabulary of 0 tokens: give --vocabulary, at least 1");
    if (end_token && *end_token >= vocabulary)
      throw UserError("end token {} lies outside the vocabulary of {}: correct --end-token or --vocabulary",
                      *end_token, vocabulary);
  }

  std::string name() const override { return "ids"; }
  std::uint32_t vocabulary() const override { return vocabulary_; }
  std::optional<std::uint32_t> end_token() const override { return end_token_; }

  void encode(std::string_view text, std::vector<std::uint32_t>& tokens) const override {
    for (std::size_t at = 0; (at = text.find_first_not_of(" \t\r\n", at)) != std::string_view::npos;) {
      const std::size_t end = std::min(text.find_first_of(" \t\r\n", at), text.size());
      const auto token = parse_number<std::uint32_t>(text.substr(at, end - at));
      if (!token || *token >= vocabulary_)
        throw UserError(
            "'{}' is no token id below {}: the data were made of token ids: write them, with spaces "
            "between",
            text.substr(at, end - at), vocabulary_);
      tokens.push_back(*token);
      at = end;
    }
  }

  std::string decode(std::span<const std::uint32_t> tokens) const override {
    std::string text;
    for (const std::uint32_t token : tokens) {
      if (token == end_token_) continue;
      text += ' ';
      text += std::to_string(token);
    }
    return text;
  }

  std::string describe() const override {
    json description{{"kind", "ids"}, {"vocabulary", vocabulary_}};
    if (end_token_) description["end_token"] = *end_token_;
    return description.dump();
  }

 private:
  std::uint32_t vocabulary_;
  std::optional<std::uint32_t> end_token_;
};

}  // namespace

std::uint64_t Tokenizer::hash() const {
  const std::string description = describe();
  return hash_bytes(std::as_bytes(std::span(description)));
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec) {
  if (spec == "bytes") return std::make_unique<BytesTokenizer>();
  throw UserError("unknown tokenizer '{}': known is bytes", spec);
}

std::unique_ptr<Tokenizer> make_id_tokenizer(std::uint32_t vocabulary,
                                             std::optional<std::uint32_t> end_token) {
  return std::make_unique<IdTokenizer>(vocabulary, end_token);
}

std::unique_ptr<Tokenizer> tokenizer_from_description(const std::string& description,
                                                      const std::string& where) {
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    const json parsed = json::parse(description);
    const std::string kind = parsed.at("kind");
    if (kind == "bytes") tokenizer = std::make_unique<BytesTokenizer>();
    if (const auto vocabulary = whole_number(parsed, "vocabulary"); kind == "ids" && vocabulary)
      tokenizer = std::make_unique<IdTokenizer>(*vocabulary, whole_number(parsed, "end_token"));
  } catch (const json::exception& error) {
    throw UserError("the tokenizer in {} cannot be read ({}): restore the file or make it again", where,
                    error.what());
  }
  if (!tokenizer || tokenizer->describe() != description)
    throw UserError(
        "the tokenizer in {} is none that this version knows ({}): restore the file or use a newer version",
        where, description);
  return tokenizer;
}

}  // namespace muster
