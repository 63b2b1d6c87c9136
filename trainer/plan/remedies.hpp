// What would make a run fit the memory that it does not fit: each remedy is planned before it is named, so that what is
// named helps.
#pragma once

#include <functional>
#include <string>

#include "trainer/config/config.hpp"
#include "trainer/plan/memory_check.hpp"

namespace muster {

struct Start {
  Config config;  // as it was told: for_ranks() has still to follow the number of ranks
  int ranks = 1;
  int local_ranks = 1;  // of a host
};

// What a start would take of the memory that it does not fit. Throws UserError where it cannot be divided.
using DemandOf = std::function<Demand(const Start&)>;

// The settings and numbers of ranks that suffice, each alone; else the least that suffice together; else how much memory
// would. `share_memory`: ranks of a host do, as on CPUs; else each has a device of its own.
std::string remedies(const Start& start, const DemandOf& demand, bool share_memory);

}  // namespace muster
