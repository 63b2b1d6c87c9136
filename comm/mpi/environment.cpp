#include "comm/mpi/environment.hpp"

#include <cstdio>
#include <exception>
#include <mpi.h>

#include "comm/async_communicator.hpp"
#include "comm/mpi/transport.hpp"
#include "comm/watchdog.hpp"
#include "core/error.hpp"

namespace muster {

MpiEnvironment::MpiEnvironment(double limit_seconds)
    : exceptions_(std::uncaught_exceptions()), limit_seconds_(limit_seconds) {
  const Deadline deadline("the start of MPI", limit_seconds_);
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_MULTIPLE)
    throw UserError("this MPI was built without MPI_THREAD_MULTIPLE: install one with it (Open MPI has it)");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

MpiEnvironment::~MpiEnvironment() {
  if (std::uncaught_exceptions() > exceptions_) {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::defect));
  }
  const Deadline deadline("the end of MPI", limit_seconds_, log_);
  MPI_Finalize();
}

std::unique_ptr<Communicator> MpiEnvironment::world(MemoryAccount& account) {
  const Deadline deadline("the start of MPI", limit_seconds_);
  return std::make_unique<AsyncCommunicator>(std::make_shared<ProgressThread>(), mpi_world_transport(),
                                             account);
}

}  // namespace muster
