#include "model/update/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

const FlatKernels& flat_kernels() {
  static constexpr FlatKernels kernels = {adamw,   sgd,           block_squares, add_flat,
                                          to_bf16, store_scalars, add_report,    finish_step};
  return kernels;
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
