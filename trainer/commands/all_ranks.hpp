// Runs a command's body on every rank that mpirun or srun started (on one without them), and ends them
// together.
#pragma once

#include <functional>

#include "comm/communicator.hpp"
#include "core/memory.hpp"

namespace muster {

// Starts MPI and runs `body`, which returns the exit code. An error that all ranks know ends them in order;
// any other is printed here and ends the others at once.
int on_all_ranks(const std::function<int(Communicator&, MemoryAccount&)>& body);

}  // namespace muster
