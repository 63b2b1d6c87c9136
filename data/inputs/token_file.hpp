// Where the tokens of a file lie, and their type: .npy by its header, .bin as told.
#pragma once

#include <string>

#include "data/input.hpp"

namespace muster {

// Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
InputFile examine_npy(const std::string& path);

// Numbers and nothing else. `token_type`: u16 or u32, as the user gave it; may be empty.
InputFile examine_bin(const std::string& path, const std::string& token_type);

}  // namespace muster
