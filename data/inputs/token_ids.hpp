// Tokens made elsewhere, whichever file they come from. Documents end with the end token if there is one.
#pragma once

#include "data/input.hpp"

namespace muster {

void encode_ids(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded);

}  // namespace muster
