#include "model/ops/linear.hpp"

#include <algorithm>

#include "core/parallel.hpp"
#include "model/ops/cpu/kernels.hpp"
#include "model/ops/cpu/matmul.hpp"
#include "model/ops/cpu/vector.hpp"

namespace muster::cpu {
namespace {

MatrixView view_of(const TensorView& tensor) { return {tensor.data, tensor.columns()}; }

// (+)= the sums of dz's columns: rows in blocks of 128, blocks in order.
template <class T>
void bias_gradient(const TensorView& dz, float* dbias, bool accumulate) {
  constexpr std::int64_t strip = 4 * lanes, block = 128;
  const std::int64_t rows = dz.rows(), columns = dz.columns();
  parallel_ranges(columns, strip, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t column = begin; column < end; column += lanes) {
      const std::int64_t part = std::min(lanes, end - column);
      Floats total = accumulate ? load_part(dbias + column, part) : Floats{};
      for (std::int64_t first = 0; first < rows; first += block) {
        Floats sum{};
        for (std::int64_t row = first; row < std::min(rows, first + block); ++row)
          sum += load_part(dz.as<T>() + row * columns + column, part);
        total += sum;
      }
      store_part(dbias + column, total, part);
    }
  });
}

}  // namespace

std::uint64_t linear_workspace(const Op&, Types inputs, Types, int threads) {
  return matmul_workspace(inputs[0].dtype, {inputs[0].rows(), inputs[1].rows(), inputs[0].columns()},
                          threads);
}

void linear(const Op& op, const KernelArgs& args) {
  const TensorView &x = args.inputs[0], &w = args.inputs[1], &y = args.outputs[0];
  MatmulOutput c{y.data, y.dtype(), y.columns()};
  if (args.inputs.size() > 2 && args.inputs[2]) c.bias = args.inputs[2].as<float>();
  c.gelu = static_cast<const Linear&>(op).activation() == Activation::gelu;
  if (args.outputs.size() > 1) c.before_gelu = args.outputs[1].data;
  matmul(x.dtype(), {x.rows(), w.rows(), x.columns()}, view_of(x), view_of(w).transposed(), c,
         args.workspace);
}

std::uint64_t linear_input_gradient_workspace(const Op&, Types inputs, Types, int threads) {
  return matmul_workspace(inputs[0].dtype, {inputs[0].rows(), inputs[1].columns(), inputs[0].columns()},
                          threads);
}

void linear_input_gradient(const Op&, const KernelArgs& args) {
  const TensorView &dz = args.inputs[0], &w = args.inputs[1], &dx = args.outputs[0];
  matmul(dz.dtype(), {dz.rows(), w.columns(), dz.columns()}, view_of(dz), view_of(w),
         {dx.data, dx.dtype(), dx.columns()}, args.workspace);
}

std::uint64_t linear_weight_gradient_workspace(const Op&, Types inputs, Types, int threads) {
  return matmul_workspace(inputs[0].dtype, {inputs[0].columns(), inputs[1].columns(), inputs[0].rows()},
                          threads);
}

void linear_weight_gradient(const Op&, const KernelArgs& args) {
  const TensorView &dz = args.inputs[0], &x = args.inputs[1], &dw = args.outputs[0];
  matmul(dz.dtype(), {dz.columns(), x.columns(), dz.rows()}, view_of(dz).transposed(), view_of(x),
         {dw.data, DType::f32, dw.columns(), args.accumulate}, args.workspace);
  if (args.outputs.size() < 2) return;
  float* const dbias = args.outputs[1].as<float>();
  if (dz.dtype() == DType::bf16)
    bias_gradient<bf16>(dz, dbias, args.accumulate);
  else
    bias_gradient<float>(dz, dbias, args.accumulate);
}

}  // namespace muster::cpu
