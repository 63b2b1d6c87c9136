#include "data/inputs/encoding.hpp"

#include <cstring>

#include "core/hash.hpp"

namespace muster {
namespace {

template <class Stored>
void append_as(std::span<const std::uint32_t> tokens, std::vector<std::byte>& out) {
  const std::size_t at = out.size();
  out.resize(at + tokens.size() * sizeof(Stored));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto token = static_cast<Stored>(tokens[i]);
    std::memcpy(out.data() + at + i * sizeof(Stored), &token, sizeof(Stored));
  }
}

}  // namespace

std::uint64_t hash_of_start(std::string_view text) {
  return hash_bytes(std::as_bytes(std::span(text.substr(0, hashed_start))));
}

std::uint64_t hash_of_ids(std::span<const std::uint32_t> ids) { return hash_bytes(std::as_bytes(ids)); }

std::string read_range(const File& file, std::uint64_t begin, std::uint64_t end) {
  std::string text(end - begin, '\0');
  file.read_exactly(std::as_writable_bytes(std::span(text)), begin);
  return text;
}

void append(std::span<const std::uint32_t> tokens, DType type, std::vector<std::byte>& out) {
  if (type == DType::u16)
    append_as<std::uint16_t>(tokens, out);
  else
    append_as<std::uint32_t>(tokens, out);
}

void append_end_token(const Tokenizer& tokenizer, std::vector<std::uint32_t>& tokens) {
  if (const auto end_token = tokenizer.end_token()) tokens.push_back(*end_token);
}

}  // namespace muster
