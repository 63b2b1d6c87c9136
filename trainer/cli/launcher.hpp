// What a launcher (mpirun, srun) has told this process, before MPI or without it.
#pragma once

#include <optional>

namespace muster {

// Which of the processes that a launcher started this one is; nothing without a launcher.
std::optional<int> launched_rank();

// The first of them speaks for all where they would say the same.
inline bool speaks_for_all_ranks() { return launched_rank().value_or(0) == 0; }

// Whether this process is to do the work of a command for one process, which several would do over each other. The second
// says that the others leave it alone.
bool works_alone(const char* command);

}  // namespace muster
