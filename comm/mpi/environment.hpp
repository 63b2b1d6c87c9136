// MPI: its life from start to end, and the communicator of all ranks over it.
//
// Messages are nonblocking point-to-point calls on the caller's own memory, made by one progress thread:
// MPI_Iallreduce does not move by itself, and MPI_Allreduce takes memory of its own.
#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "core/memory.hpp"

namespace muster {

// Starts MPI and ends it. Without mpirun there is one rank. Lives on the main thread, longer than its
// communicators. Errors are to be caught inside its scope: who leaves the scope by an exception ends all
// ranks, because MPI cannot end in order without the others.
class MpiEnvironment {
 public:
  MpiEnvironment();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  // The communicator of all ranks. Its staging comes from `account`.
  std::unique_ptr<Communicator> world(MemoryAccount& account);

 private:
  int exceptions_ = 0;  // in flight when MPI was started
};

}  // namespace muster
