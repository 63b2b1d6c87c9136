// Every call of the CUDA runtime is checked. What fails is a defect of ours or of the machine, with file and
// line.
#pragma once

#include <cuda_runtime.h>

#include "core/error.hpp"

namespace muster {

// Throws Defect unless the call succeeded.
void check_cuda(cudaError_t result, const char* what, SourceLine where = SourceLine::current());

// For destructors, which may run because an error is already on its way: logs instead.
void note_cuda(cudaError_t result, const char* what) noexcept;

}  // namespace muster
