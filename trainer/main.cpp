// The program: reads the command line, runs the command, and turns its failure into one line and an exit
// code.

#include <exception>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "trainer/cli/command_line.hpp"
#include "trainer/failure.hpp"
#include "trainer/launcher.hpp"
#include "trainer/output.hpp"

int main(int count, char** values) {
  muster::hold_standard_streams();
  muster::Command command;
  try {
    command = muster::read_command_line(std::vector<std::string>(values + 1, values + count));
  } catch (const std::exception& error) {
    return muster::speaks_for_all_ranks() ? muster::report_failure(error)
                                          : static_cast<int>(muster::ExitCode::user_error);
  }
  try {
    return muster::finish_output(command());
  } catch (const std::exception& error) {
    // Printing throws, too.
    return muster::lost_output() ? muster::finish_output(0) : muster::report_failure(error);
  }
}
