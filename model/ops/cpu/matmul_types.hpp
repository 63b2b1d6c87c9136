// A matrix product as the kernels are told of it.
#pragma once

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

// C = A B. A and B have the type `type`.
struct Matmul {
  DType type = DType::f32;
  MatmulShape shape;
  MatrixView a, b;
  MatmulOutput c;
};

enum class MatmulEngine : std::uint8_t { own, onednn };

}  // namespace muster::cpu
