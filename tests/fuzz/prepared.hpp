// What the targets share that read what `prepare` reads: a file becomes documents, and the same ones wherever its blocks
// end.
#pragma once

#include <string>

#include "data/tokenizer.hpp"

namespace muster::fuzz {

// Reads the file, the lines that are no documents passed over. `cut` chooses where it is divided into two blocks.
// `token_type` is that of .bin files that do not tell it.
void prepare_file(const std::string& path, const Tokenizer& tokenizer, std::uint64_t cut,
                  const std::string& token_type = "");

}  // namespace muster::fuzz
