// Attention forward, from scratch and behind a cache.
#pragma once

#include "model/ops/cuda/attention_problem.cuh"

namespace muster::cuda {

template <class T>
struct ForwardTensors {
  HeadRows<const T> q, k, v;
  HeadRows<T> o;
  float* lse = nullptr;  // may be null
};

// From the room of a cache to the keys in it: StepScalars::kv_length, which every query sees, and the queries' own.
__device__ inline void trim_to_cache(AttentionProblem& problem) {
  problem.keys = min(problem.keys, static_cast<int>(problem.scalars->kv_length) + problem.queries);
  problem.before = problem.keys - problem.queries;
}

// With `cached`, problem.keys is the room of a cache.
template <class T>
void attention_forward(const AttentionShape& shape, const AttentionProblem& problem,
                       const ForwardTensors<T>& tensors, bool cached, const KernelArgs& args);

// The same for heads of up to 128.
void attention_forward_on_tensor_cores(const AttentionShape& shape, const AttentionProblem& problem,
                                       const ForwardTensors<__nv_bfloat16>& tensors, bool cached,
                                       const KernelArgs& args);

}  // namespace muster::cuda
