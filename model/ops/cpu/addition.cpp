// Sum of two tensors.
#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

void add(const Op&, const KernelArgs& args) {
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    const T *a = args.inputs[0].as<T>(), *b = args.inputs[1].as<T>();
    T* y = args.outputs[0].as<T>();
    for_lanes_parallel(args.outputs[0].elements(), [=](std::int64_t i, auto part) {
      store(y + i, load(a + i, part) + load(b + i, part), part);
    });
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
