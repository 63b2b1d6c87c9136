// How the program fails: one line that starts with `muster:`, from one rank, and an exit code that scripts
// understand.
#pragma once

#include <exception>
#include <utility>

#include "comm/communicator.hpp"

namespace muster {

// A failure whose line is out: only its exit code is left to hand on.
class Told : public std::exception {
 public:
  explicit Told(int code) : code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

// Prints the line on the standard error, unless another rank prints it or it is Told, and returns the exit code.
int report_failure(const std::exception& error);

// Ends the job, with the line, when `error` is one that other ranks do not know: they wait for this one.
void end_job_if_alone(Communicator& comm, const std::exception& error);

// Returns what `body` does, and lets errors through that all ranks know. One of this rank alone ends the job before the
// caller's buffers are given back: messages to and from them are still under way, and a GPU that is to free memory waits
// for collectives that its peers will never join.
template <class Body>
decltype(auto) ending_job_when_alone(Communicator& comm, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const std::exception& error) {
    end_job_if_alone(comm, error);
    throw;
  }
}

}  // namespace muster
