// Plain text: a file, or the part of one that is given, is one document.
#pragma once

#include <cstdint>

#include "data/input.hpp"

namespace muster {

void encode_text(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded);

// Where the last `share` of a text begins: with a line, unless that leaves less than half of it; else with a character.
// Of a single byte nothing is cut off.
std::uint64_t cut_before_end(const InputFile& text, double share);

}  // namespace muster
