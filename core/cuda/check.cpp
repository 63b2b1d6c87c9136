#include "core/cuda/check.hpp"

#include <cstdio>
#include <fmt/format.h>

namespace muster {

void check_cuda(cudaError_t result, const char* what, SourceLine where) {
  if (result == cudaSuccess) return;
  throw Defect(fmt::format("{}: {} ({})", what, cudaGetErrorString(result), cudaGetErrorName(result)), where);
}

void note_cuda(cudaError_t result, const char* what) noexcept {
  // While the process ends, the runtime may be gone before what it gave us.
  if (result == cudaSuccess || result == cudaErrorCudartUnloading) return;
  try {
    fmt::print(stderr, "{}: {} ({})\n", what, cudaGetErrorString(result), cudaGetErrorName(result));
  } catch (...) {
    // A line that cannot be written must not end a clean-up.
  }
}

}  // namespace muster
