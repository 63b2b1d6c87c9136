// The CPU kernels over flat spaces of one instruction set; table.cpp lists them. What each computes stands in
// model/update/flat_kernels.hpp.
#pragma once

#include "model/ops/cpu/isa.hpp"
#include "model/update/flat_kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

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

// As muster::fill_normal.
void fill_normal(std::span<float> x, std::int64_t first, float scale, std::uint32_t key, std::uint64_t seed);

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
