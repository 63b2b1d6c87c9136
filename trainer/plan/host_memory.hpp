// Whether a plan fits the memory of this host and of its devices, and whether a process keeps to it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/device.hpp"
#include "core/memory.hpp"

namespace muster {

// Bytes by kind, as a MemoryAccount counts them.
using MemoryByKind = std::array<std::uint64_t, memory_kinds>;

// What a user can do when memory does not suffice and this kind takes most of it.
std::string_view remedy(MemoryKind largest);

// Throws UserError, with the largest kind and the remedy, when what is planned exceeds this process's share
// of the host.
void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks);
// The same of the device of one of `ranks`. A GPU is to have left, too, what its libraries take as they are first used
// (gpu_runtime_bytes); some of that may be taken already, so this errs to the safe side.
void refuse_if_too_large(const MemoryByKind& planned, const Device& device, int ranks, int local_ranks);

// Throws Defect unless the account holds, kind by kind, exactly what was planned.
void check_as_planned(const MemoryAccount& account, const MemoryByKind& planned);

}  // namespace muster
