#include "model/update/cuda/kernels.hpp"

namespace muster {

const FlatKernels& cuda_flat_kernels() {
  using namespace cuda;
  static constexpr FlatKernels kernels = {adamw,   sgd,           block_squares, add_flat,
                                          to_bf16, store_scalars, add_report,    finish_step};
  return kernels;
}

}  // namespace muster
