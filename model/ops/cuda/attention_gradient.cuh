// Attention backward by kernels of our own.
#pragma once

#include "model/ops/cuda/attention_problem.cuh"

namespace muster::cuda {

template <class T>
struct GradientTensors {
  HeadRows<const T> d_o, q, k, v, o;
  HeadRows<T> dq, dk, dv;
  const float* lse;
  float* delta;  // [B, H, T_q], of the workspace
};

void own_attention_gradient(const AttentionGradient& op, const KernelArgs& args);

// The same for heads of up to 128.
void attention_gradient_on_tensor_cores(const AttentionShape& shape, const AttentionProblem& problem,
                                        const GradientTensors<__nv_bfloat16>& tensors,
                                        const KernelArgs& args);

}  // namespace muster::cuda
