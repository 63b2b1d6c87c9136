// Linear layers: the products by cuBLASLt, each 2 N K O FLOPs; bytes: every tensor once.
//
// A bias is added to the sums in f32 by cuBLASLt's epilogue, which wants it in the output's type: beside bf16 it is
// rounded to bf16 first, as PyTorch's autocast does, because adding it in f32 would cost a pass over y.
//
// GELU is a kernel of its own that reads z and writes y. cuBLASLt's epilogue would save that reading, but it takes
// gelu of the sum before it is rounded to bf16, and its tanh is its own: recomputing y from the z that is kept
// would then change bits, and in f32 the CPU's losses would not be met.
#include "model/ops/activation.hpp"
#include "model/ops/cuda/column_sums.hpp"
#include "model/ops/cuda/context.hpp"
#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/kernels.hpp"
#include "model/ops/cuda/linear_layout.hpp"
#include "model/ops/linear.hpp"

namespace muster::cuda {
namespace {

Matrix matrix(const TensorView& tensor, bool transposed = false) {
  return {tensor.data, tensor.columns(), transposed};
}

Product product(const TensorView& like, const Matrix& a, const Matrix& b, std::int64_t k,
                const TensorView& c) {
  return {.inputs = like.dtype(),
          .m = c.rows(),
          .n = c.columns(),
          .k = k,
          .a = a,
          .b = b,
          .c = c.data,
          .output = c.dtype(),
          .c_stride = c.columns()};
}

template <class T>
struct Rounded {
  __device__ float operator()(float x) const { return x; }
};

// The bias in y's type.
const void* bias_like(const TensorView& y, const TensorView& bias, const KernelArgs& args) {
  if (y.dtype() == DType::f32) return bias.data;
  std::byte* const rounded = args.workspace + LinearLayout(*y.type, true).bias;
  map(args.stream, Rounded<__nv_bfloat16>{}, reinterpret_cast<__nv_bfloat16*>(rounded), bias.elements(),
      bias.as<const float>());
  return rounded;
}

}  // namespace

void linear(const Op& op, const KernelArgs& args) {
  const TensorView &x = args.inputs[0], &w = args.inputs[1], &y = args.outputs[0];
  const bool activated = static_cast<const Linear&>(op).activation() == Activation::gelu;
  const TensorView& z = args.outputs.size() > 1 ? args.outputs[1] : y;
  Product forward = product(x, matrix(x), matrix(w, true), x.columns(), z);
  if (args.inputs.size() > 2 && args.inputs[2]) forward.bias = bias_like(z, args.inputs[2], args);
  context_of(args).matmuls.run(forward, args.workspace, args.stream);
  if (activated)
    gelu(Gelu(),
         KernelArgs{.inputs = {&z, 1}, .outputs = {&y, 1}, .stream = args.stream, .context = args.context});
}

void linear_input_gradient(const Op&, const KernelArgs& args) {
  const TensorView &dz = args.inputs[0], &w = args.inputs[1];
  context_of(args).matmuls.run(product(dz, matrix(dz), matrix(w), dz.columns(), args.outputs[0]),
                               args.workspace, args.stream);
}

void linear_weight_gradient(const Op&, const KernelArgs& args) {
  const TensorView &dz = args.inputs[0], &x = args.inputs[1];
  Product weights = product(dz, matrix(dz, true), matrix(x), dz.rows(), args.outputs[0]);
  weights.accumulate = args.accumulate;
  context_of(args).matmuls.run(weights, args.workspace, args.stream);
  if (args.outputs.size() > 1)
    column_sums(dz, args.outputs[1].as<float>(), args.accumulate, args.workspace, args.stream);
}

}  // namespace muster::cuda
