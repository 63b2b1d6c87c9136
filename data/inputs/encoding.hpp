// What the formats share on the way from bytes of a file to tokens of a block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "core/file.hpp"
#include "data/tokenizer.hpp"

namespace muster {

inline constexpr std::size_t hashed_start = 65536;  // bytes or ids of a document that its hash is made of

std::uint64_t hash_of_start(std::string_view text);
// The hash of ids that are no more than `hashed_start`.
std::uint64_t hash_of_ids(std::span<const std::uint32_t> ids);

std::string read_range(const File& file, std::uint64_t begin, std::uint64_t end);

// Tokens as the dataset stores them, of `type` u16 or u32.
void append(std::span<const std::uint32_t> tokens, DType type, std::vector<std::byte>& out);
void append_end_token(const Tokenizer& tokenizer, std::vector<std::uint32_t>& tokens);

}  // namespace muster
