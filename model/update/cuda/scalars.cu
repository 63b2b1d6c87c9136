#include "core/cuda/launch.hpp"
#include "model/update/cuda/kernels.hpp"

namespace muster::cuda {
namespace {

__global__ void store_scalars_kernel(StepScalars value, StepScalars* to) { *to = value; }

}  // namespace

void store_scalars(NativeStream stream, StepScalars value, StepScalars* to) {
  launch(store_scalars_kernel, 1, 1, 0, stream, value, to);
}

}  // namespace muster::cuda
