// Attention backward by kernels of our own.
#pragma once

#include "model/ops/attention.hpp"
#include "model/ops/kernel.hpp"

namespace muster::cuda {

void own_attention_gradient(const AttentionGradient& op, const KernelArgs& args);

}  // namespace muster::cuda
