// Sums over the rows of a matrix: the gradients of biases and of norms' weights. Rows are summed in fixed blocks
// into partial sums, and these in a second kernel, so that no atomics are needed and the bits are the same every time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/stream.hpp"
#include "core/tensor.hpp"

namespace muster::cuda {

// Blocks of 64 rows or more; at most 256 of them, so that partial sums cost little beside the matrix.
constexpr std::int64_t column_sum_rows(std::int64_t rows) {
  return std::max<std::int64_t>(64, (rows + 255) / 256);
}
constexpr std::int64_t column_sum_blocks(std::int64_t rows) {
  return (rows + column_sum_rows(rows) - 1) / column_sum_rows(rows);
}
constexpr std::uint64_t column_sums_workspace(std::int64_t rows, std::int64_t columns) {
  return static_cast<std::uint64_t>(column_sum_blocks(rows) * columns) * sizeof(float);
}

// to[c] (+)= sum over n of matrix[n, c]. `workspace` holds column_sums_workspace bytes.
void column_sums(const TensorView& matrix, float* to, bool accumulate, std::byte* workspace,
                 NativeStream stream);

// to[c] (+)= sum over blocks of partial[block, c].
void sum_blocks(const float* partial, std::int64_t blocks, std::int64_t columns, float* to, bool accumulate,
                NativeStream stream);

}  // namespace muster::cuda
