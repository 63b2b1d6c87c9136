// Reads 12 and writes 8 bytes an element, without momentum 8 and 4; a thread computes 16 bytes of each space.
#include <cmath>

#include "model/ops/cuda/elementwise.cuh"
#include "model/update/cuda/kernels.hpp"
#include "model/update/sgd.hpp"

namespace muster::cuda {
namespace {

// `buffer` is null without momentum. The loads go out before the outcome is known.
template <int W>
__global__ void __launch_bounds__(block_threads)
    sgd_kernel(SgdRule rule, const StepOutcome* outcome, float* weights, float* buffer, const float* gradient,
               std::int64_t count) {
  const std::int64_t i = thread_of_grid() * W;
  if (i >= count) return;
  Floats<W> w = load_floats<W>(weights + i), b{};
  if (buffer != nullptr) b = load_floats<W>(buffer + i);
  const Floats<W> gradients = load_floats<W>(gradient + i);
  if (outcome->skipped != 0) return;
  const float scale = outcome->gradient_scale;
  for (int k = 0; k < W; ++k) {
    const float g = fmaf(rule.decay, w[k], gradients[k] * scale);
    float direction = g;
    if (buffer != nullptr) {
      b[k] = fmaf(rule.momentum, b[k], g);
      direction = rule.nesterov ? fmaf(rule.momentum, b[k], g) : b[k];
    }
    w[k] = fmaf(-rule.lr, direction, w[k]);
  }
  store_floats(weights + i, w);
  if (buffer != nullptr) store_floats(buffer + i, b);
}

}  // namespace

void sgd(NativeStream stream, const SgdRule& rule, const StepOutcome* outcome, std::span<float> w,
         std::span<float> momentum, std::span<const float> gradient) {
  check(gradient.size() == w.size() && (momentum.empty() || momentum.size() == w.size()),
        "weights, momentum and gradients of one length");
  float* const buffer = momentum.empty() ? nullptr : momentum.data();
  check(aligned(16, w.data(), buffer, gradient.data()), "flat spaces aligned to 16 bytes");
  // Whole vectors, then what is left.
  const auto count = static_cast<std::int64_t>(w.size()), whole = count / 4 * 4;
  if (whole > 0)
    launch(sgd_kernel<4>, blocks_for(whole / 4), block_threads, 0, stream, rule, outcome, w.data(), buffer,
           gradient.data(), whole);
  if (whole < count)
    launch(sgd_kernel<1>, 1, block_threads, 0, stream, rule, outcome, w.data() + whole,
           buffer == nullptr ? nullptr : buffer + whole, gradient.data() + whole, count - whole);
}

}  // namespace muster::cuda
