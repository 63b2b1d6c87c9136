// Tokens made elsewhere, whichever file they come from. Documents end where the file's index says so, else with the end
// token if there is one. Where a document lacks the end token, it is added.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "data/input.hpp"

namespace muster {

constexpr std::size_t size_of(IdType type) {
  switch (type) {
    case IdType::u8:
    case IdType::i8:
      return 1;
    case IdType::u16:
    case IdType::i16:
      return 2;
    case IdType::u32:
    case IdType::i32:
      return 4;
    case IdType::u64:
    case IdType::i64:
      return 8;
  }
  return 0;
}

constexpr std::string_view name_of(IdType type) {
  constexpr std::array names = {"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"};
  return names[static_cast<std::size_t>(type)];
}

// Where the last `share` of the tokens begins. Of a single one nothing is cut off.
std::uint64_t cut_ids_before_end(const InputFile& file, double share);

void encode_ids(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded);

}  // namespace muster
