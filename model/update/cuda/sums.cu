// Sums and copies of flat spaces. Bytes an element: block_squares reads 4, add reads 8 and writes 4, and to_bf16 reads 4
// and writes 2; 2 FLOPs in f64 in block_squares. A thread computes 16 bytes of f32, four times as much in
// block_squares, whose blocks are those of 4,096 elements.
#include <algorithm>
#include <cmath>

#include "model/ops/cuda/elementwise.cuh"
#include "model/update/cuda/kernels.hpp"

namespace muster::cuda {
namespace {

__global__ void __launch_bounds__(block_threads)
    block_squares_kernel(double* sums, const float* x, std::int64_t count) {
  __shared__ double scratch[warp_size];
  const std::int64_t begin = blockIdx.x * flat_block, end = std::min(begin + flat_block, count);
  constexpr int vectors = flat_block / (4 * block_threads);
  Floats<4> values[vectors]{};
  double sum = 0;  // of exact products: 24 + 24 bits
  const auto add_square = [&sum](float value) {
    sum = fma(static_cast<double>(value), static_cast<double>(value), sum);
  };
  for (int k = 0; k < vectors; ++k) {
    const std::int64_t i = begin + (k * block_threads + static_cast<int>(threadIdx.x)) * 4;
    if (i + 4 <= end)
      values[k] = load_floats<4>(x + i);
    else
      for (std::int64_t rest = i; rest < end; ++rest) add_square(x[rest]);
  }
  for (const Floats<4>& vector : values)
    for (const float value : vector.lanes) add_square(value);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

struct Same {
  __device__ float operator()(float x) const { return x; }
};

}  // namespace

void block_squares(NativeStream stream, std::span<const float> x, std::span<double> sums) {
  const auto count = static_cast<std::int64_t>(x.size());
  check(static_cast<std::int64_t>(sums.size()) == divide_up(count, flat_block),
        "a sum for each block of 4,096 elements");
  check(aligned(16, x.data()), "flat spaces aligned to 16 bytes");
  if (count == 0) return;
  launch(block_squares_kernel, dim3(static_cast<unsigned>(sums.size())), block_threads, 0, stream,
         sums.data(), x.data(), count);
}

void add_flat(NativeStream stream, std::span<float> a, std::span<const float> b) {
  check(a.size() == b.size(), "sums of spaces of one length");
  map(stream, Sum{}, a.data(), static_cast<std::int64_t>(a.size()), static_cast<const float*>(a.data()),
      b.data());
}

void to_bf16(NativeStream stream, std::span<const float> from, std::span<bf16> to) {
  check(from.size() == to.size(), "copies of one length");
  map(stream, Same{}, reinterpret_cast<__nv_bfloat16*>(to.data()), static_cast<std::int64_t>(from.size()),
      from.data());
}

}  // namespace muster::cuda
