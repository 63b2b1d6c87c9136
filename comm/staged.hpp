// Collectives of device memory through pinned host memory, for ranks that NCCL cannot join: several on one
// GPU.
#pragma once

#include <cstdint>
#include <memory>

#include "comm/communicator.hpp"
#include "core/device.hpp"
#include "core/memory.hpp"

namespace muster {

// Collective over `host`, which is split and outlives it. An all_to_all sends and receives at most
// `slot_bytes` on a rank, all together; other collectives travel in parts of that size. Staging memory for
// several of them under way is taken from `account` (MemoryKind::communication).
std::unique_ptr<Communicator> staged_communicator(Communicator& host, const Device& device,
                                                  MemoryAccount& account, std::uint64_t slot_bytes);

// What that takes from `account`, and, when there are other ranks, the split of `host` from its own.
std::uint64_t staged_bytes(std::uint64_t slot_bytes);

}  // namespace muster
