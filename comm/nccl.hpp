// NCCL: collectives among GPUs, on a stream of their own. Memory given to them is the device's.
#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "core/device.hpp"

namespace muster {

// Collective over `host`, whose ranks it has; `host` outlives it. Its ranks drive different GPUs. Throws
// PeerError when they have not met after `deadline` seconds, here or in a first collective, which makes
// connections and until then holds its caller.
//
// It is to be closed before memory that collectives under way may use is freed: freeing a GPU's memory waits
// for them, also for those whose peers are lost.
std::unique_ptr<Communicator> nccl_communicator(Communicator& host, const Device& device, double deadline);

}  // namespace muster
