#include "model/update/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

void store_scalars(NativeStream, StepScalars value, StepScalars* to) { *to = value; }

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
