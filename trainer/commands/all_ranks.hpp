// Runs a command's body on every rank that mpirun or srun started (on one without them), and ends them
// together.
#pragma once

#include <cstdint>
#include <functional>

#include "comm/communicator.hpp"
#include "core/memory.hpp"

namespace muster {

// Starts MPI and runs `body`, which returns the exit code. An error that all ranks know ends them in order;
// any other is printed here and ends the others at once.
int on_all_ranks(const std::function<int(Communicator&, MemoryAccount&)>& body);

// Threads of a rank: `asked` (run.threads) if not 0, else the cores that it may use, divided by the ranks
// that share them.
int threads_of_rank(std::int64_t asked, int local_ranks);

}  // namespace muster
