// GELU and SwiGLU, and their gradients.
#include "model/ops/activation.hpp"

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
void gelu(const Op&, const KernelArgs& args) {
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    const T* z = args.inputs[0].as<T>();
    T* y = args.outputs[0].as<T>();
    for_lanes_parallel(args.outputs[0].elements(),
                       [=](std::int64_t i, auto part) { store(y + i, gelu(load(z + i, part)), part); });
  });
}

void gelu_gradient(const Op&, const KernelArgs& args) {
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    const T *dy = args.inputs[0].as<T>(), *z = args.inputs[1].as<T>();
    T* dz = args.outputs[0].as<T>();
    for_lanes_parallel(args.outputs[0].elements(), [=](std::int64_t i, auto part) {
      store(dz + i, load(dy + i, part) * gelu_derivative(load(z + i, part)), part);
    });
  });
}

void gelu_erf(const Op&, const KernelArgs& args) {
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    const T* z = args.inputs[0].as<T>();
    T* y = args.outputs[0].as<T>();
    for_lanes_parallel(args.outputs[0].elements(),
                       [=](std::int64_t i, auto part) { store(y + i, gelu_erf(load(z + i, part)), part); });
  });
}

void gelu_erf_gradient(const Op&, const KernelArgs& args) {
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    const T *dy = args.inputs[0].as<T>(), *z = args.inputs[1].as<T>();
    T* dz = args.outputs[0].as<T>();
    for_lanes_parallel(args.outputs[0].elements(), [=](std::int64_t i, auto part) {
      store(dz + i, load(dy + i, part) * gelu_erf_derivative(load(z + i, part)), part);
    });
  });
}

void swiglu(const Op&, const KernelArgs& args) {
  const std::int64_t rows = args.outputs[0].rows(), width = args.outputs[0].columns();
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    parallel_ranges(rows, rows_of_task(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T *gate = args.inputs[0].as<T>() + 2 * width * row, *up = gate + width;
        T* y = args.outputs[0].as<T>() + width * row;
        for_lanes(0, width, [=](std::int64_t c, auto part) {
          const Floats g = load(gate + c, part);
          store(y + c, g * sigmoid(g) * load(up + c, part), part);
        });
      }
    });
  });
}

void swiglu_gradient(const Op&, const KernelArgs& args) {
  const std::int64_t rows = args.inputs[0].rows(), width = args.inputs[0].columns();
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    parallel_ranges(rows, rows_of_task(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T* gradient = args.inputs[0].as<T>() + width * row;
        const T *gate = args.inputs[1].as<T>() + 2 * width * row, *up = gate + width;
        T *d_gate = args.outputs[0].as<T>() + 2 * width * row, *d_up = d_gate + width;
        for_lanes(0, width, [=](std::int64_t c, auto part) {
          const Floats dy = load(gradient + c, part), g = load(gate + c, part), u = load(up + c, part);
          const Floats s = sigmoid(g);
          store(d_gate + c, dy * u * s * fma(g, 1.0f - s, broadcast(1.0f)), part);
          store(d_up + c, dy * g * s, part);
        });
      }
    });
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
