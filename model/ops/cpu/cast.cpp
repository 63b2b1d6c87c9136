#include "model/ops/cast.hpp"

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

void cast(const Op&, const KernelArgs& args) {
  with_type(args.inputs[0].dtype(), [&](auto from) {
    with_type(args.outputs[0].dtype(), [&](auto to) {
      const auto* x = args.inputs[0].as<decltype(from)>();
      auto* y = args.outputs[0].as<decltype(to)>();
      for_lanes_parallel(args.outputs[0].elements(),
                         [=](std::int64_t i, auto part) { store(y + i, load(x + i, part), part); });
    });
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
