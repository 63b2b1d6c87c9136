// The command line: which command it asks for, with which options.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace muster {

// What to run; returns the exit code.
using Command = std::function<int()>;

// Reads the arguments after the program's name. Help, version and the short guide are commands that print.
// Throws UserError for what it does not understand.
Command read_command_line(std::vector<std::string> arguments);

}  // namespace muster
