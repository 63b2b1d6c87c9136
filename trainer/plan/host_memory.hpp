// What this host has, and what this process holds of it.
#pragma once

#include <cstdint>

#include "trainer/plan/run_plan.hpp"

namespace muster {

// The lesser of the memory that the system calls available and what the control group (container, batch job)
// leaves.
std::uint64_t available_bytes();

// Memory of this process that is its own: RssAnon + RssShmem. Before a run takes its buffers this is what
// libraries, code and stacks take, the line `runtime` of a plan.
std::uint64_t resident_bytes();

// Throws UserError, with the largest kinds and the remedy, when the plan exceeds this process's share of the
// host.
void refuse_if_too_large(const RunPlan& plan, std::uint64_t available, int local_ranks);

}  // namespace muster
