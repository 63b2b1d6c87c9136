// Whether a plan fits the memory of this host and of its devices, and whether a process keeps to it.
#pragma once

#include <array>
#include <cstdint>

#include "core/device.hpp"
#include "core/memory.hpp"
#include "trainer/plan/devices.hpp"

namespace muster {

// Bytes by kind, as a MemoryAccount counts them.
using MemoryByKind = std::array<std::uint64_t, memory_kinds>;

std::uint64_t total_of(const MemoryByKind& bytes);

// Throws UserError, with the largest kind and the remedy, when what is planned exceeds this process's share
// of the host.
void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks);
// The same of the device of one of `ranks`. A GPU is to have left, too, what its libraries take as they are first used
// (gpu_runtime_bytes); some of that may be taken already, so this errs to the safe side.
void refuse_if_too_large(const MemoryByKind& planned, const Device& device, int ranks, int local_ranks);
// The same of a device that may be elsewhere; its libraries take `runtime_bytes`.
void refuse_if_too_large_for(const DeviceModel& device, const MemoryByKind& planned,
                             std::uint64_t runtime_bytes);

// Throws Defect unless the account holds, kind by kind, exactly what was planned.
void check_as_planned(const MemoryAccount& account, const MemoryByKind& planned);

}  // namespace muster
