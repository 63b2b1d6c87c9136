// JSON lines: a line is one document, its field "text". Blank lines and empty texts are none.
#pragma once

#include <string>
#include <string_view>

#include "core/error.hpp"
#include "core/file.hpp"
#include "data/input.hpp"

namespace muster {

inline constexpr std::uint64_t longest_line = std::uint64_t{256} << 20;  // held in memory whole

UserError too_long_line(const std::string& path, std::uint64_t number);

// Whether a file whose contents, decompressed, begin with `start`, of at most block_bytes, is JSON lines. By extension:
//   .jsonl, .ndjson  always
//   .txt             never
//   others           if its first line is an object with a string "text"; of .json also if it is an object at all and
//                    lines follow, so that the name of another field is not trained on
// UserError, with the way to mend it, for objects with a text that do not stand on lines: a JSON array, or one object
// over several lines.
bool are_json_lines(const std::string& path, const std::string& extension, std::string_view start);

// The number of the line that starts at `position`, from 1.
std::uint64_t line_at(const File& file, std::uint64_t position);

// Bad lines are passed over and listed.
void encode_json_lines(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded);

}  // namespace muster
