// Runs a command's body on every rank that mpirun or srun started (on one without them), and ends them
// together.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/memory.hpp"
#include "trainer/config/read.hpp"

namespace muster {

// Starts MPI and runs `body`, which returns the exit code. An error that all ranks know ends them in order;
// any other is printed here and ends the others at once. From before the ranks meet until they have parted, a watchdog
// ends them when nobody gets on for `watchdog` seconds (comm/watchdog.hpp; 0: none).
int on_all_ranks(const std::function<int(Communicator&, MemoryAccount&)>& body, double watchdog = 0);

// run.watchdog, for the time before all ranks know the configuration. What is wrong with that is told later, by one of
// them: here it leaves the default.
double watchdog_of(const std::string& config, const std::vector<Override>& overrides);

}  // namespace muster
