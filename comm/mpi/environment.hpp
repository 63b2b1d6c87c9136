// MPI: its life from start to end, and the communicator of all ranks over it.
//
// Messages are nonblocking point-to-point calls on the caller's own memory, made by one progress thread:
// MPI_Iallreduce does not move by itself, and MPI_Allreduce takes memory of its own.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.hpp"
#include "core/memory.hpp"

namespace muster {

// Starts MPI and ends it. Without mpirun there is one rank. Lives on the main thread, longer than its
// communicators. Errors are to be caught inside its scope: who leaves the scope by an exception ends all
// ranks, because MPI cannot end in order without the others.
class MpiEnvironment {
 public:
  // Where a rank hangs, the start and the end of MPI are given `limit_seconds` (0: no limit), and end this one.
  explicit MpiEnvironment(double limit_seconds = 0);
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  // The communicator of all ranks. Its staging comes from `account`.
  std::unique_ptr<Communicator> world(MemoryAccount& account);

  // The log of this rank, where the end of MPI takes too long.
  void tell_last_words_to(const std::string& log) { log_ = log; }

 private:
  int exceptions_ = 0;  // in flight when MPI was started
  double limit_seconds_;
  std::string log_;
};

}  // namespace muster
