// What this host has, what this process holds of it, and whether a plan keeps to it.
#pragma once

#include <array>
#include <cstdint>

#include "core/memory.hpp"

namespace muster {

// Bytes by kind, as a MemoryAccount counts them.
using MemoryByKind = std::array<std::uint64_t, memory_kinds>;

// The lesser of the memory that the system calls available and what the control groups (container, batch job)
// leave.
std::uint64_t available_bytes();

// Memory of this process that is its own: RssAnon + RssShmem. Before a run takes its buffers this is what
// libraries, code and stacks take, the line `runtime` of a plan.
std::uint64_t resident_bytes();

// Throws UserError, with the largest kind and the remedy, when what is planned exceeds this process's share
// of the host.
void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks);

// Throws Defect unless the account holds, kind by kind, exactly what was planned.
void check_as_planned(const MemoryAccount& account, const MemoryByKind& planned);

}  // namespace muster
