// Text to token ids and back.
//
// A tokenizer is stored whole, as one JSON text, in each dataset and each checkpoint; the hash of that text
// says whether a dataset, a checkpoint and a prompt speak the same language.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace muster {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;
  // Ids are 0 .. vocabulary() - 1. (A model may pad its own vocabulary beyond.)
  virtual std::uint32_t vocabulary() const = 0;
  // Ends each document. Nothing for token files that came without one.
  virtual std::optional<std::uint32_t> end_token() const = 0;
  // Appends the tokens of `text`, without an end token. Long documents come in pieces (data/input.hpp).
  virtual void encode(std::string_view text, std::vector<std::uint32_t>& tokens) const = 0;
  // The text of the tokens; the end token has none, and an unknown id gives U+FFFD.
  virtual std::string decode(std::span<const std::uint32_t> tokens) const = 0;
  // JSON from which tokenizer_from_description makes an equal one.
  virtual std::string describe() const = 0;

  std::uint64_t hash() const;
};

// From what a user names, `bytes`: 256 bytes and the end token 256.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec);
// For tokens made elsewhere: what they stand for is not known, so a text is ids with spaces between them.
std::unique_ptr<Tokenizer> make_id_tokenizer(std::uint32_t vocabulary,
                                             std::optional<std::uint32_t> end_token);
// `where` names the file that holds the description.
std::unique_ptr<Tokenizer> tokenizer_from_description(const std::string& description,
                                                      const std::string& where);

}  // namespace muster
