// The standard output as the result of a command: where it does not take all of it, the command has failed.
#pragma once

namespace muster {

// Where the program was started without standard streams, holds their places: a file that is opened later must not get
// what is printed. Printing there fails.
void hold_standard_streams();

// Of a command that has run: the exit code, which is not 0 when something of what it printed was lost; that is told. A pipe
// that nobody reads any more ends the program quietly, by SIGPIPE, as it ends others.
int finish_output(int code);

// Whether printing has failed before.
bool lost_output();

}  // namespace muster
