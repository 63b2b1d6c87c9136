// Where things lie in the workspaces of the linear layer and of the head, from shapes alone.
#pragma once

#include "model/ops/cross_entropy.hpp"
#include "model/ops/cuda/matmul.hpp"

namespace muster::cuda {

// The forward product's: behind what cuBLASLt takes the bias in y's type, where that is not f32.
struct LinearLayout {
  std::uint64_t bias, bytes;

  LinearLayout(const TensorType& y, bool biased)
      : bias(matmul_workspace(y.rows(), y.columns())), bytes(bias) {
    if (biased && y.dtype != DType::f32) bytes += static_cast<std::uint64_t>(y.columns()) * size_of(y.dtype);
  }
};

// The head's: losses f64 [N]; the logits of a chunk [rows, stride], in x's type; what cuBLASLt takes.
struct HeadLayout {
  // A chunk costs one pass over dw (8 bytes an element, against 2 rows FLOPs): with 8,192 rows a tenth of that
  // product's time on an H100. Wider vocabularies have fewer rows, so that the logits stay within 1 GiB.
  static constexpr std::int64_t most_rows = 8192, fewest_rows = 1024, tile_rows = 256;
  static constexpr std::int64_t most_logits = std::int64_t{1} << 30;  // bytes

  std::int64_t rows, stride;
  std::uint64_t logits, products, bytes;

  HeadLayout(const LinearCrossEntropy& op, const TensorType& x, const TensorType& w);
};

}  // namespace muster::cuda
