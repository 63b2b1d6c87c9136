// Kernels over flat spaces. Bytes an element: adamw reads 16 and writes 12, block_squares reads 4, add reads 8 and
// writes 4, and to_bf16 reads 4 and writes 2; some 20 FLOPs in adamw, 2 in f64 in block_squares. A
// thread computes 16 bytes of f32, four times as much in block_squares, whose blocks are those of 4,096 elements.
#include <algorithm>
#include <cmath>

#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/flat_step.hpp"
#include "model/ops/flat.hpp"

namespace muster {
namespace cuda {
namespace {

// AdamW's factors that do not change within a run's step.
struct AdamWFactors {
  float beta1, rest1, beta2, rest2, keep, epsilon;
  double lr;
};

// The loads go out before the outcome is known.
template <int W>
__global__ void __launch_bounds__(block_threads)
    adamw_kernel(AdamWFactors rule, const StepOutcome* outcome, float* weights, float* first, float* second,
                 const float* gradient, std::int64_t count) {
  const std::int64_t i = thread_of_grid() * W;
  if (i >= count) return;
  Floats<W> w = load_floats<W>(weights + i), m = load_floats<W>(first + i), v = load_floats<W>(second + i);
  const Floats<W> g = load_floats<W>(gradient + i);
  if (outcome->skipped != 0) return;
  const float scale = outcome->gradient_scale;
  const auto step = static_cast<float>(rule.lr / outcome->correction1);
  const auto root = static_cast<float>(1.0 / sqrt(outcome->correction2));
  for (int k = 0; k < W; ++k) {
    const float scaled = g[k] * scale;
    m[k] = fmaf(rule.beta1, m[k], rule.rest1 * scaled);
    v[k] = fmaf(rule.beta2, v[k], rule.rest2 * scaled * scaled);
    w[k] = fmaf(rule.keep, w[k], -(step * m[k] / fmaf(sqrtf(v[k]), root, rule.epsilon)));
  }
  store_floats(weights + i, w);
  store_floats(first + i, m);
  store_floats(second + i, v);
}

void adamw(NativeStream stream, const AdamW& rule, const StepOutcome* outcome, std::span<float> w,
           std::span<float> m, std::span<float> v, std::span<const float> gradient) {
  check(m.size() == w.size() && v.size() == w.size() && gradient.size() == w.size(),
        "weights, moments and gradients of one length");
  check(aligned(16, w.data(), m.data(), v.data(), gradient.data()), "flat spaces aligned to 16 bytes");
  const auto lr = static_cast<double>(rule.lr);
  const AdamWFactors factors{rule.beta1,
                             static_cast<float>(1.0 - static_cast<double>(rule.beta1)),
                             rule.beta2,
                             static_cast<float>(1.0 - static_cast<double>(rule.beta2)),
                             static_cast<float>(1.0 - lr * static_cast<double>(rule.decay)),
                             rule.epsilon,
                             lr};
  // Whole vectors, then what is left.
  const auto count = static_cast<std::int64_t>(w.size()), whole = count / 4 * 4;
  if (whole > 0)
    launch(adamw_kernel<4>, blocks_for(whole / 4), block_threads, 0, stream, factors, outcome, w.data(),
           m.data(), v.data(), gradient.data(), whole);
  if (whole < count)
    launch(adamw_kernel<1>, 1, block_threads, 0, stream, factors, outcome, w.data() + whole, m.data() + whole,
           v.data() + whole, gradient.data() + whole, count - whole);
}

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

void block_squares(NativeStream stream, std::span<const float> x, std::span<double> sums) {
  const auto count = static_cast<std::int64_t>(x.size());
  check(static_cast<std::int64_t>(sums.size()) == divide_up(count, flat_block),
        "a sum for each block of 4,096 elements");
  check(aligned(16, x.data()), "flat spaces aligned to 16 bytes");
  if (count == 0) return;
  launch(block_squares_kernel, dim3(static_cast<unsigned>(sums.size())), block_threads, 0, stream,
         sums.data(), x.data(), count);
}

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

void add_flat(NativeStream stream, std::span<float> a, std::span<const float> b) {
  check(a.size() == b.size(), "sums of spaces of one length");
  map(stream, Sum{}, a.data(), static_cast<std::int64_t>(a.size()), static_cast<const float*>(a.data()),
      b.data());
}

struct Same {
  __device__ float operator()(float x) const { return x; }
};

void to_bf16(NativeStream stream, std::span<const float> from, std::span<bf16> to) {
  check(from.size() == to.size(), "copies of one length");
  map(stream, Same{}, reinterpret_cast<__nv_bfloat16*>(to.data()), static_cast<std::int64_t>(from.size()),
      from.data());
}

}  // namespace

}  // namespace cuda

const FlatKernels& cuda_flat_kernels() {
  static constexpr FlatKernels kernels = {cuda::adamw,      cuda::block_squares, cuda::add_flat,
                                          cuda::to_bf16,    cuda::store_scalars, cuda::add_report,
                                          cuda::finish_step};
  return kernels;
}

}  // namespace muster
