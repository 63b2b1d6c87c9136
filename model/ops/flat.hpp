// Kernels over flat spaces: what happens to parameters, gradients and optimizer state outside the graph.
//
// All results are independent of the number of threads and of how a range is cut at multiples of 4,096
// elements.
#pragma once

#include <cstdint>
#include <span>

#include "core/dtype.hpp"

namespace muster {

// Flat spaces align tensors, buckets and owned ranges to this many elements; sums of squares run over such
// blocks.
inline constexpr std::int64_t flat_block = 4096;

// AdamW with decoupled decay (Loshchilov, Hutter 2019), as PyTorch computes it, in f32:
//   g = gradient * gradient_scale                    (1/N and the clip factor)
//   w *= 1 - lr decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)
struct AdamW {
  float lr = 0, beta1 = 0.9f, beta2 = 0.95f, epsilon = 1e-8f, decay = 0, gradient_scale = 1;
  double correction1 = 1, correction2 = 1;  // 1 - b1^t, 1 - b2^t
};

struct FlatKernels {
  // Bytes: reads 16, writes 12 an element.
  void (*adamw)(const AdamW& rule, std::span<float> w, std::span<float> m, std::span<float> v,
                std::span<const float> gradient);
  // sums[i] = sum of squares of block i (4,096 elements, the last may be short) in f64.
  void (*block_squares)(std::span<const float> x, std::span<double> sums);
  // a += b
  void (*add)(std::span<float> a, std::span<const float> b);
  void (*to_bf16)(std::span<const float> from, std::span<bf16> to);
  // x[i] = scale * normal(element first + i), Box-Muller on philox((e / 4, 0, 0, key), seed): words 0, 1 give
  // elements 4k and 4k+1, words 2, 3 the next two: r cos(a) and r sin(a) with r = sqrt(-2 ln(1 - uniform(word
  // 0))) and a = 2 pi uniform(word 1). `first` is a multiple of 4.
  void (*fill_normal)(std::span<float> x, std::int64_t first, float scale, std::uint32_t key,
                      std::uint64_t seed);
};

const FlatKernels& cpu_flat_kernels();

}  // namespace muster
