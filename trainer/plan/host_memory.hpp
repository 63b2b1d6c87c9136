// What this host has, what this process holds of it, and whether a plan keeps to it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/memory.hpp"

namespace muster {

// Bytes by kind, as a MemoryAccount counts them.
using MemoryByKind = std::array<std::uint64_t, memory_kinds>;

// What a user can do when memory does not suffice and this kind takes most of it.
std::string_view remedy(MemoryKind largest);

// Throws UserError, with the largest kind and the remedy, when what is planned exceeds this process's share
// of the host.
void refuse_if_too_large(const MemoryByKind& planned, std::uint64_t available, int local_ranks);

// Throws Defect unless the account holds, kind by kind, exactly what was planned.
void check_as_planned(const MemoryAccount& account, const MemoryByKind& planned);

}  // namespace muster
