// The machine that this process runs on.
#pragma once

#include <string>

namespace muster {

std::string host_name();  // "unknown" if it has none

}  // namespace muster
