#include "comm/nccl/check.hpp"

#include <string>

namespace muster {

void check_nccl(ncclResult_t result, const char* call, ncclComm_t comm, SourceLine where) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  std::string message = fmt::format("{}: {}", call, ncclGetErrorString(result));
  if (const char* words = ncclGetLastError(comm); words != nullptr && *words != '\0')
    message += fmt::format(" ({}; NCCL_DEBUG=WARN says more)", words);
  // A peer or the network between was lost.
  if (result == ncclRemoteError || result == ncclSystemError) throw PeerError(message);
  throw Defect(message, where);
}

}  // namespace muster
