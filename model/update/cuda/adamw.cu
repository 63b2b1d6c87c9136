// Reads 16 and writes 12 bytes an element, some 20 FLOPs; a thread computes 16 bytes of each space.
#include <cmath>

#include "model/ops/cuda/elementwise.cuh"
#include "model/update/adamw.hpp"
#include "model/update/cuda/kernels.hpp"

namespace muster::cuda {
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

}  // namespace

void adamw(NativeStream stream, const AdamWRule& rule, const StepOutcome* outcome, std::span<float> w,
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

}  // namespace muster::cuda
