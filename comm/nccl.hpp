// NCCL: collectives among GPUs, on a stream of their own. Memory given to them is the device's.
#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "core/device.hpp"

namespace muster {

// Collective over `host`, whose ranks it has; `host` outlives it. Its ranks drive different GPUs. Throws PeerError when
// they have not met after `deadline` seconds.
std::unique_ptr<Communicator> nccl_communicator(Communicator& host, const Device& device, double deadline);

}  // namespace muster
