// The matrix product under every linear layer: C[m, n] = sum over k of A[m, k] B[k, n], f32 or bf16 in, sums
// in f32.
//
// Two engines compute tiles of C, each tile on one thread. Our own kernels (AVX-512, or what the compiler
// makes of them) sum an element over blocks of k that are fixed by the type alone, each in increasing order:
// its bits depend on nothing but its own row of A and column of B. oneDNN is faster where the processor has
// AMX; there the bits depend on the shape as well, which fixes the tiles. Neither depends on the number of
// threads.
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

// C = A B. A and B have the type `type`.
struct Matmul {
  DType type = DType::f32;
  MatmulShape shape;
  MatrixView a, b;
  MatmulOutput c;
};

enum class MatmulEngine : std::uint8_t { own, onednn };
// The faster one of this build.
MatmulEngine engine_for(DType type);

// The workspace is aligned to 64 bytes and of matmul_workspace's size for thread_count() threads. Sizes are
// known before there is memory: matmul_workspace reads neither pointers nor c.accumulate.
void matmul(const Matmul& product, std::byte* workspace, MatmulEngine engine);
std::uint64_t matmul_workspace(const Matmul& product, int threads, MatmulEngine engine);

inline void matmul(const Matmul& product, std::byte* workspace) {
  matmul(product, workspace, engine_for(product.type));
}
inline std::uint64_t matmul_workspace(const Matmul& product, int threads) {
  return matmul_workspace(product, threads, engine_for(product.type));
}

}  // namespace muster::cpu
