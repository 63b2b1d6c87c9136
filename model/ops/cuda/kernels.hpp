// The CUDA kernels by name; table.cpp lists them. What each computes stands in the header of its op, how it does
// it in its own file: bytes, FLOPs, and how the work is cut.
#pragma once

#include "model/ops/kernel.hpp"

namespace muster::cuda {

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

}  // namespace muster::cuda
