// The table of keys as text that people read.
#pragma once

#include <string>

namespace muster {

// For `muster train --help`: a line a key with its default.
std::string keys_as_help();
// docs/configuration.md.
std::string keys_as_markdown();

}  // namespace muster
