#include "model/ops/linear.hpp"

#include <algorithm>

#include "core/parallel.hpp"
#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"
#include "model/ops/cpu/matmul.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

MatrixView matrix(const TensorView& tensor) { return {tensor.data, tensor.columns()}; }

// The products, from tensors that may have no memory yet.
Matmul forward_product(const TensorView& x, const TensorView& w, const MatmulOutput& y) {
  return {x.dtype(), {x.rows(), w.rows(), x.columns()}, matrix(x), matrix(w).transposed(), y};
}

Matmul input_gradient_product(const TensorView& dz, const TensorView& w, const TensorView& dx) {
  const MatmulOutput c{.data = dx.data, .dtype = dx.dtype(), .stride = dx.columns()};
  return {dz.dtype(), {dz.rows(), w.columns(), dz.columns()}, matrix(dz), matrix(w), c};
}

Matmul weight_gradient_product(const TensorView& dz, const TensorView& x, const TensorView& dw,
                               bool accumulate) {
  const MatmulOutput c{
      .data = dw.data, .dtype = DType::f32, .stride = dw.columns(), .accumulate = accumulate};
  return {dz.dtype(), {dz.columns(), x.columns(), dz.rows()}, matrix(dz).transposed(), matrix(x), c};
}

TensorView unplaced(const TensorType& type) { return {nullptr, &type}; }

// (+)= the sums of dz's columns: rows in blocks of 128, blocks in order.
template <class T>
void bias_gradient(const TensorView& dz, float* dbias, bool accumulate) {
  constexpr std::int64_t strip = 64, block = 128;
  const std::int64_t rows = dz.rows(), columns = dz.columns();
  parallel_ranges(columns, strip, [&](std::int64_t begin, std::int64_t end) {
    for_lanes(begin, end, [&](std::int64_t column, auto part) {
      Floats total = accumulate ? load(dbias + column, part) : Floats{};
      for (std::int64_t first = 0; first < rows; first += block) {
        Floats sum{};
        for (std::int64_t row = first; row < std::min(rows, first + block); ++row)
          sum += load(dz.as<T>() + row * columns + column, part);
        total += sum;
      }
      store(dbias + column, total, part);
    });
  });
}

}  // namespace

std::uint64_t linear_workspace(const Op&, Types inputs, Types outputs, int threads) {
  const MatmulOutput y{.dtype = outputs[0].dtype, .stride = outputs[0].columns()};
  return matmul_workspace(forward_product(unplaced(inputs[0]), unplaced(inputs[1]), y), threads);
}

void linear(const Op& op, const KernelArgs& args) {
  const TensorView &x = args.inputs[0], &w = args.inputs[1], &y = args.outputs[0];
  MatmulOutput c{.data = y.data, .dtype = y.dtype(), .stride = y.columns()};
  if (args.inputs.size() > 2 && args.inputs[2]) c.bias = args.inputs[2].as<float>();
  c.gelu = static_cast<const Linear&>(op).activation() == Activation::gelu;
  if (args.outputs.size() > 1) c.before_gelu = args.outputs[1].data;
  matmul(forward_product(x, w, c), args.workspace);
}

std::uint64_t linear_input_gradient_workspace(const Op&, Types inputs, Types outputs, int threads) {
  return matmul_workspace(
      input_gradient_product(unplaced(inputs[0]), unplaced(inputs[1]), unplaced(outputs[0])), threads);
}

void linear_input_gradient(const Op&, const KernelArgs& args) {
  matmul(input_gradient_product(args.inputs[0], args.inputs[1], args.outputs[0]), args.workspace);
}

std::uint64_t linear_weight_gradient_workspace(const Op&, Types inputs, Types outputs, int threads) {
  return matmul_workspace(
      weight_gradient_product(unplaced(inputs[0]), unplaced(inputs[1]), unplaced(outputs[0]), false),
      threads);
}

void linear_weight_gradient(const Op&, const KernelArgs& args) {
  const TensorView& dz = args.inputs[0];
  matmul(weight_gradient_product(dz, args.inputs[1], args.outputs[0], args.accumulate), args.workspace);
  if (args.outputs.size() < 2) return;
  float* const dbias = args.outputs[1].as<float>();
  if (dz.dtype() == DType::bf16)
    bias_gradient<bf16>(dz, dbias, args.accumulate);
  else
    bias_gradient<float>(dz, dbias, args.accumulate);
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
