// Kernels over flat spaces: what happens to parameters, gradients and optimizer state outside the graph.
//
// All results are independent of the number of threads and of how a range is cut at multiples of 4,096
// elements. All memory is the device's; what the host passes goes by value, so that nothing waits.
#pragma once

#include <span>

#include "core/dtype.hpp"
#include "core/instruction_set.hpp"
#include "core/stream.hpp"
#include "model/graph/parameter_space.hpp"
#include "model/ops/kernel.hpp"
#include "model/update/adamw.hpp"
#include "model/update/outcome.hpp"
#include "model/update/sgd.hpp"

namespace muster {

struct FlatKernels {
  // The optimizers' updates; they do nothing when outcome->skipped. An empty momentum is none.
  void (*adamw)(NativeStream, const AdamWRule& rule, const StepOutcome* outcome, std::span<float> w,
                std::span<float> m, std::span<float> v, std::span<const float> gradient);
  void (*sgd)(NativeStream, const SgdRule& rule, const StepOutcome* outcome, std::span<float> w,
              std::span<float> momentum, std::span<const float> gradient);
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

}  // namespace muster
