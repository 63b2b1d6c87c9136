// The matrix product under every linear layer: C[m, n] = sum over k of A[m, k] B[k, n], f32 or bf16 in, sums
// in f32.
//
// Every element of C is one chain of sums over k in increasing order, whatever the tiles, the threads and the
// other rows, so its bits depend on nothing but its own row of A and column of B. (Where oneDNN computes a
// tile, matmul_onednn.cpp, they depend on the shape as well.)
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"

namespace muster::cpu {

// A matrix in memory: element (i, j) at i * row_stride + j * column_stride, one of which is 1.
struct MatrixView {
  const void* data = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 1;

  MatrixView transposed() const { return {data, column_stride, row_stride}; }
};

// Where C goes, row-major, and what happens to its elements on the way.
struct MatmulOutput {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t stride = 0;
  bool accumulate = false;      // C is added to; f32 only, without the rest
  const float* bias = nullptr;  // [n], added to each row
  bool gelu =
      false;  // gelu of the sum as rounded to dtype, so that it can be computed again from what is kept
  void* before_gelu = nullptr;  // keeps that sum, laid out like data
};

struct MatmulShape {
  std::int64_t m = 0, n = 0, k = 0;
};

// A and B have the type `type`; the workspace is aligned to 64 bytes and of matmul_workspace's size.
void matmul(DType type, const MatmulShape& shape, const MatrixView& a, const MatrixView& b,
            const MatmulOutput& c, std::byte* workspace);
std::uint64_t matmul_workspace(DType type, const MatmulShape& shape, int threads);

}  // namespace muster::cpu
