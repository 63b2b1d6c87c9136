// Matrix products by cuBLASLt: an algorithm is chosen once for each problem and kept.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/dtype.hpp"
#include "core/stream.hpp"

namespace muster::cuda {

// A row-major matrix, or its transpose.
struct Matrix {
  const void* data = nullptr;
  std::int64_t stride = 0;  // elements from row to row, as stored
  bool transposed = false;
};

// c[m, n] (+)= a[m, k] b[k, n] (+ bias[n]), in f32 sums; TF32 is never used. Inputs in f32 give f32, those in bf16
// give either. A bias goes with a product that does not accumulate.
struct Product {
  DType inputs = DType::f32;  // of a and b
  std::int64_t m = 0, n = 0, k = 0;
  Matrix a, b;
  void* c = nullptr;
  DType output = DType::f32;
  std::int64_t c_stride = 0;
  bool accumulate = false;
  const void* bias = nullptr;  // [n] in the output's type, as cuBLASLt wants it; null: none
};

// What cuBLASLt may take for a product of m x n; part of the plan. It holds partial sums of a divided k: up to 16 of
// them, at most the 32 MiB that NVIDIA advises for Hopper.
constexpr std::uint64_t matmul_workspace(std::int64_t m, std::int64_t n) {
  const std::uint64_t sums = 16 * sizeof(float) * static_cast<std::uint64_t>(m * n);
  return std::clamp<std::uint64_t>((sums + 4095) / 4096 * 4096, 1 << 18, std::uint64_t{32} << 20);
}

class Matmuls {
 public:
  Matmuls();
  ~Matmuls();
  // `workspace` holds matmul_workspace(product.m, product.n) bytes, aligned to 256.
  void run(const Product& product, std::byte* workspace, NativeStream stream);
  // How many algorithms were chosen so far.
  std::size_t problems() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace muster::cuda
