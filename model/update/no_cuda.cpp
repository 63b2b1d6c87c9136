// A build without CUDA plans for a GPU that is elsewhere, and updates nothing on it.
#include "core/error.hpp"
#include "model/update/flat_kernels.hpp"

namespace muster {

const FlatKernels& cuda_flat_kernels() { throw Defect("a CUDA kernel runs in a build without CUDA"); }

}  // namespace muster
