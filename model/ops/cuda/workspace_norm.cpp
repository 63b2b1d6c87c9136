#include "model/ops/cuda/norm_layout.hpp"
#include "model/ops/cuda/workspace.hpp"
#include "model/ops/norm.hpp"

namespace muster::cuda {

// Partial sums f32 [blocks, C] of dweight, and with a bias of dbias.
std::uint64_t norm_gradient_workspace(const Op& op, Types inputs, Types, int) {
  const std::int64_t rows = inputs[0].rows(), columns = inputs[0].columns();
  const std::int64_t sums = static_cast<const NormGradient&>(op).bias() ? 2 : 1;
  return static_cast<std::uint64_t>(sums * norm_gradient_blocks(rows, columns) * columns) * sizeof(float);
}

}  // namespace muster::cuda
