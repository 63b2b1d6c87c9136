// Kernels over flat spaces: what happens to parameters, gradients and optimizer state outside the graph.
//
// All results are independent of the number of threads and of how a range is cut at multiples of 4,096
// elements. All memory is the device's; what the host passes goes by value, so that nothing waits.
#pragma once

#include <cstdint>
#include <span>

#include "core/dtype.hpp"
#include "core/instruction_set.hpp"
#include "core/stream.hpp"
#include "model/graph/parameter_space.hpp"
#include "model/ops/kernel.hpp"

namespace muster {

// What a leaf of the reduction tree tells all ranks.
struct LeafReport {
  double loss = 0;           // sum over its valid targets
  std::int64_t targets = 0;  // how many these are
  std::uint32_t stop = 0;    // its rank was asked to stop
  std::uint32_t failed = 0;  // its rank could not read its data
};

// What all ranks know of a step before they update; it stays in the device's memory from step to step.
//   loss = (sum of the leaves' losses) / N,  norm = ||gradient of the sum|| / N,  N = sum of targets
//   gradient_scale = min(1, clip / (norm + 1e-6)) / N
// The update is skipped when N = 0, a leaf failed, or the loss or the norm is not finite.
struct StepOutcome {
  double loss = 0;
  double grad_norm = 0;
  std::int64_t targets = 0;  // N
  std::int64_t updates =
      0;  // not skipped, this step included, since the run began: carried from step to step
  double correction1 = 1, correction2 = 1;  // 1 - beta1^updates, 1 - beta2^updates
  float gradient_scale = 1;
  std::uint32_t skipped = 0, clipped = 0;
  std::uint32_t stop = 0, failed = 0;  // of any leaf
};

struct OutcomeRule {
  double clip = 0;  // 0: none
  double beta1 = 0.9, beta2 = 0.95;
};

// AdamW with decoupled decay (Loshchilov, Hutter 2019), as PyTorch computes it, in f32:
//   g = gradient * gradient_scale                    (1/N and the clip factor)
//   w *= 1 - lr decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)
struct AdamW {
  float lr = 0, beta1 = 0.9f, beta2 = 0.95f, epsilon = 1e-8f, decay = 0;
};

struct FlatKernels {
  // Does nothing when outcome->skipped. Bytes: reads 16, writes 12 an element.
  void (*adamw)(NativeStream, const AdamW& rule, const StepOutcome* outcome, std::span<float> w,
                std::span<float> m, std::span<float> v, std::span<const float> gradient);
  // sums[i] = sum of squares of block i (4,096 elements, the last may be short) in f64.
  void (*block_squares)(NativeStream, std::span<const float> x, std::span<double> sums);
  // a += b
  void (*add)(NativeStream, std::span<float> a, std::span<const float> b);
  void (*to_bf16)(NativeStream, std::span<const float> from, std::span<bf16> to);
  // *to = value
  void (*store_scalars)(NativeStream, StepScalars value, StepScalars* to);
  // *to = (first ? 0 : *to) + more, whose loss is *loss where given.
  void (*add_report)(NativeStream, LeafReport more, const double* loss, bool first, LeafReport* to);
  // The outcome of a step. `squares`, one of each block of the flat space in its order, are overwritten: both
  // sums run over the tree of comm/reduction.hpp's tree_sum (at stride 1, 2, 4, ...: x[i] += x[i + stride]
  // for i a multiple of 2 stride with i + stride inside).
  void (*finish_step)(NativeStream, const OutcomeRule& rule, std::span<const LeafReport> leaves,
                      std::span<double> squares, StepOutcome* outcome);
};

const FlatKernels& cpu_flat_kernels(InstructionSet set = instruction_set());
const FlatKernels& cuda_flat_kernels();  // throws when built without CUDA

// Fresh weights are drawn on the host, so that they are the same on every device:
// x[i] = scale * normal(element first + i), Box-Muller on philox((e / 4, 0, 0, key), seed): words 0, 1 give
// elements 4k and 4k+1, words 2, 3 the next two: r cos(a) and r sin(a) with r = sqrt(-2 ln(1 - uniform(word
// 0))) and a = 2 pi uniform(word 1). `first` is a multiple of 4.
void fill_normal(std::span<float> x, std::int64_t first, float scale, std::uint32_t key, std::uint64_t seed);

}  // namespace muster
