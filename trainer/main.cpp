// The program: reads the command line, runs the command, and turns its failure into one line and an exit
// code.

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "trainer/cli/command_line.hpp"

namespace muster {
namespace {

// All ranks read the same command line, so the first of those that a launcher started speaks for them.
bool speaks_for_all_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* rank = std::getenv(name)) return std::string(rank) == "0";
  }
  return true;
}

int fail(const std::exception& error, ExitCode code, bool speaks) {
  if (speaks && is_printed_here(error)) {
    std::string line = error.what();
    std::ranges::replace(line, '\n', ' ');
    std::fflush(stdout);
    fmt::print(stderr, "muster: {}\n", line);
  }
  return static_cast<int>(code);
}

template <class Action>
int guarded(bool speaks, const Action& action) {
  try {
    return action();
  } catch (const UserError& error) {
    return fail(error, ExitCode::user_error, speaks);
  } catch (const PeerError& error) {
    return fail(error, ExitCode::try_again, speaks);
  } catch (const std::exception& error) {
    return fail(error, ExitCode::defect, speaks);
  }
}

}  // namespace
}  // namespace muster

int main(int count, char** values) {
  using namespace muster;
  Command command;
  const int code = guarded(speaks_for_all_ranks(), [&] {
    command = read_command_line(std::vector<std::string>(values + 1, values + count));
    return 0;
  });
  return command ? guarded(true, command) : code;
}
