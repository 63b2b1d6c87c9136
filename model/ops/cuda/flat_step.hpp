// The flat kernels of flat_step.cu, which flat.cu lists.
#pragma once

#include "model/ops/flat.hpp"

namespace muster::cuda {

void store_scalars(NativeStream, StepScalars value, StepScalars* to);
void add_report(NativeStream, LeafReport more, const double* loss, bool first, LeafReport* to);
void finish_step(NativeStream, const OutcomeRule& rule, std::span<const LeafReport> leaves,
                 std::span<double> squares, StepOutcome* outcome);

}  // namespace muster::cuda
