// JSON lines: a line is one document, its field "text". Blank lines and empty texts are none.
#pragma once

#include "data/input.hpp"

namespace muster {

void encode_json_lines(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded);

}  // namespace muster
