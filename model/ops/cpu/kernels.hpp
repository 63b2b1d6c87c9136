// The CPU kernels of one instruction set; table.cpp lists them by name. What each computes stands in the header of its
// op.
#pragma once

#include "model/ops/cpu/isa.hpp"
#include "model/ops/kernel.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

void add(const Op&, const KernelArgs&);
void attention(const Op&, const KernelArgs&);
void attention_gradient(const Op&, const KernelArgs&);
void cached_attention(const Op&, const KernelArgs&);
void cast(const Op&, const KernelArgs&);
void dropout(const Op&, const KernelArgs&);
void embedding(const Op&, const KernelArgs&);
void embedding_gradient(const Op&, const KernelArgs&);
void gelu(const Op&, const KernelArgs&);
void gelu_erf(const Op&, const KernelArgs&);
void gelu_erf_gradient(const Op&, const KernelArgs&);
void gelu_gradient(const Op&, const KernelArgs&);
void linear(const Op&, const KernelArgs&);
void linear_cross_entropy(const Op&, const KernelArgs&);
void linear_input_gradient(const Op&, const KernelArgs&);
void linear_weight_gradient(const Op&, const KernelArgs&);
void norm_gradient(const Op&, const KernelArgs&);
void renormalize(const Op&, const KernelArgs&);
void residual_norm(const Op&, const KernelArgs&);
void rope(const Op&, const KernelArgs&);
void swiglu(const Op&, const KernelArgs&);
void swiglu_gradient(const Op&, const KernelArgs&);

const KernelTable& kernels();

using Types = std::span<const TensorType>;
std::uint64_t attention_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t attention_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t cached_attention_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t embedding_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_cross_entropy_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_input_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_weight_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t norm_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
