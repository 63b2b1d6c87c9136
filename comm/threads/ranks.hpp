// Ranks as threads of one process, for tests: ThreadSanitizer cannot see across processes.
#pragma once

#include <cstdint>
#include <functional>

#include "comm/communicator.hpp"

namespace muster {

// Runs body on `ranks` threads, each with its communicator, and returns when all have ended. When a rank
// throws, or ends while others still want messages of it, what these wait for fails with PeerError. Rethrows
// what was thrown first. With a `delays` other than 0, collectives start and complete after random pauses
// drawn from it, which shakes out missing waits.
void run_ranks(int ranks, const std::function<void(Communicator&)>& body, std::uint64_t delays = 0);

}  // namespace muster
