// Every call of NCCL is checked.
#pragma once

#include <nccl.h>

#include "core/error.hpp"

namespace muster {

// Throws unless the call has succeeded or goes on (communicators of this project do not block): PeerError
// where a restart may help, else Defect. With `comm`, NCCL's own words are added.
void check_nccl(ncclResult_t result, const char* call, ncclComm_t comm = nullptr,
                SourceLine where = SourceLine::current());

}  // namespace muster
