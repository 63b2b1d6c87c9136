// How the program fails: one line that starts with `muster:`, from one rank, and an exit code that scripts
// understand.
#pragma once

#include <exception>

namespace muster {

// Prints the line on the standard error, unless another rank prints it, and returns the exit code.
int report_failure(const std::exception& error);

}  // namespace muster
