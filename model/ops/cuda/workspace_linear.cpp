#include "model/ops/cuda/column_sums.hpp"
#include "model/ops/cuda/linear_layout.hpp"
#include "model/ops/cuda/workspace.hpp"

namespace muster::cuda {
namespace {

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

// Chunks of equal size, in whole tiles; a row of logits begins at a multiple of 128 bytes.
HeadLayout::HeadLayout(const LinearCrossEntropy& op, const TensorType& x, const TensorType& w) {
  const std::int64_t n = x.rows(), width = x.columns(), table = w.rows();
  stride = round_up(table, 64);
  const std::int64_t row_bytes = stride * static_cast<std::int64_t>(size_of(x.dtype));
  const std::int64_t most =
      std::clamp(most_logits / row_bytes / tile_rows * tile_rows, fewest_rows, most_rows);
  const std::int64_t chunks = (n + most - 1) / most;
  rows = std::min(n, round_up((n + chunks - 1) / chunks, tile_rows));
  logits = static_cast<std::uint64_t>(round_up(n * static_cast<std::int64_t>(sizeof(double)), 4096));
  products = logits + static_cast<std::uint64_t>(round_up(rows * row_bytes, 4096));
  std::uint64_t largest = matmul_workspace(rows, table);
  if (op.training())
    largest = std::max({largest, matmul_workspace(rows, width), matmul_workspace(table, width)});
  bytes = products + largest;
}

std::uint64_t linear_workspace(const Op&, Types inputs, Types outputs, int) {
  return LinearLayout(outputs[0], inputs.size() > 2 && !inputs[2].shape.empty()).bytes;
}

std::uint64_t linear_input_gradient_workspace(const Op&, Types, Types outputs, int) {
  return matmul_workspace(outputs[0].rows(), outputs[0].columns());
}

// The column sums come after the product, in the same memory.
std::uint64_t linear_weight_gradient_workspace(const Op&, Types inputs, Types outputs, int) {
  const std::uint64_t product = matmul_workspace(outputs[0].rows(), outputs[0].columns());
  if (outputs.size() < 2) return product;
  return std::max(product, column_sums_workspace(inputs[0].rows(), inputs[0].columns()));
}

std::uint64_t linear_cross_entropy_workspace(const Op& op, Types inputs, Types, int) {
  return HeadLayout(static_cast<const LinearCrossEntropy&>(op), inputs[0], inputs[1]).bytes;
}

}  // namespace muster::cuda
