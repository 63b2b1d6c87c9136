// Where the tokens of a file lie, and their type: .npy by its header, .bin by its header or as told.
#pragma once

#include <string>

#include "data/input.hpp"

namespace muster {

// Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
InputFile examine_npy(const std::string& path);

// Numbers of `token_type`, u16 or u32, as the user gave it (may be empty); or behind one of the known headers of 256
// numbers of 32 bits, which tell the type and the count:
//   llm.c: 20240520, version 1 (tokens u16) or 20240801, version 7 (u32); count. The files of modded-nanogpt too.
//     Source: https://github.com/karpathy/llm.c/blob/master/dev/data/data_common.py
//   LLM.Q: "BIN.TOK\n"; version 1 or 2; bytes a token, 4; count; of version 2 also the vocabulary, and whether a mask
//     of targets follows the tokens.
//     Source: https://github.com/IST-DASLab/llmq/blob/main/scripts/tokenize_data.py
InputFile examine_bin(const std::string& path, const std::string& token_type);

}  // namespace muster
