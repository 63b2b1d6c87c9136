// Messages over MPI: MPI_Isend and MPI_Irecv on the caller's own memory, completed by MPI_Testsome.
#pragma once

#include <memory>

#include "comm/transport.hpp"

namespace muster {

// Among all ranks of the job. Collective.
std::unique_ptr<Transport> mpi_world_transport();

// Throws PeerError with MPI's own words when a call has failed.
void check_mpi(int result, const char* call);

}  // namespace muster
