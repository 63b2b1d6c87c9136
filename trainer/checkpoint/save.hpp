// Writing a checkpoint so that a kill at any instant leaves either all of it or nothing that looks like it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "trainer/checkpoint/rank_file.hpp"

namespace muster {

class Communicator;

struct CheckpointRequest {
  std::string folder;        // of the run's checkpoints; made if missing
  std::int64_t step = 0;     // updates done; names the checkpoint
  std::int64_t attempt = 0;  // of the run
  std::string state = "{}";  // any JSON, kept in the manifest as it is; rank 0's counts
  // Throws where a newer attempt has begun; called on rank 0 before anything gets its final name, and on each rank that
  // cannot write: a newer attempt removes what this one has begun.
  std::function<void()> check_current = [] {};
  // Called on rank 0 when the disk has too little room, to remove what may go.
  std::function<void()> make_room = [] {};
  std::function<void(const std::string& line)> warn = [](const std::string&) {};
};

struct SavedCheckpoint {
  std::string path;
  std::uint64_t bytes = 0;  // of all ranks' files
};

// Throws UserError when the disk of `folder`, which need not be there yet, has less room than `bytes` even with `freed`
// more. It names what attempts before `attempt` have left there.
void check_room(const std::string& folder, std::uint64_t bytes, std::int64_t attempt,
                std::uint64_t freed = 0);

// Every rank gives its slices; together they cover each tensor exactly once. Values are written straight
// from the caller's memory, which must not change meanwhile. If any rank fails, all throw the same UserError
// and nothing stays behind. A checkpoint of the same step by this or a newer attempt is never touched; one of
// an earlier attempt, or a damaged one, is set aside.
SavedCheckpoint save_checkpoint(Communicator& comm, const CheckpointRequest& request,
                                std::span<const Slice> mine);

}  // namespace muster
