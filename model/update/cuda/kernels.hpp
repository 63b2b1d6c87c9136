// The CUDA kernels over flat spaces, which table.cpp lists. What each computes stands in model/update/flat_kernels.hpp.
#pragma once

#include "model/update/flat_kernels.hpp"

namespace muster::cuda {

void adamw(NativeStream, const AdamWRule& rule, const StepOutcome* outcome, std::span<float> w,
           std::span<float> m, std::span<float> v, std::span<const float> gradient);
void sgd(NativeStream, const SgdRule& rule, const StepOutcome* outcome, std::span<float> w,
         std::span<float> momentum, std::span<const float> gradient);
void block_squares(NativeStream, std::span<const float> x, std::span<double> sums);
void add_flat(NativeStream, std::span<float> a, std::span<const float> b);
void to_bf16(NativeStream, std::span<const float> from, std::span<bf16> to);
void store_scalars(NativeStream, StepScalars value, StepScalars* to);
void add_report(NativeStream, LeafReport more, const double* loss, bool first, LeafReport* to);
void finish_step(NativeStream, const OutcomeRule& rule, std::span<const LeafReport> leaves,
                 std::span<double> squares, StepOutcome* outcome);

}  // namespace muster::cuda
