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
  Range* seen;   // [B, T_q], of the workspace; null without segments

  // What the gradient of queries leaves for the gradient of keys. By one thread of each query and head.
  __device__ void leave(const AttentionProblem& problem, int sample, int head, int query, float its_delta,
                        const Range& keys) const {
    delta[(static_cast<std::int64_t>(sample) * problem.heads + head) * problem.queries + query] = its_delta;
    if (seen && head == 0) seen[static_cast<std::int64_t>(sample) * problem.queries + query] = keys;
  }
  __device__ Range seen_by(const AttentionProblem& problem, int sample, int query) const {
    return seen ? seen[static_cast<std::int64_t>(sample) * problem.queries + query]
                : keys_of(problem, sample, query);
  }
};

// What a tile of queries brings to the gradients of keys, in shared memory.
template <int queries>
struct QueryColumns {
  float lse[queries], delta[queries];  // lse in binary logarithms
  int begin[queries], end[queries];    // of the keys that a query sees; of none behind the last query

  // By the block's first threads; visible after the next barrier.
  template <class T>
  __device__ void load(const AttentionProblem& problem, const GradientTensors<T>& t, int sample, int head,
                       int first, int last) {
    const int column = static_cast<int>(threadIdx.x);
    if (column >= queries) return;
    const bool there = first + column < last;
    const std::int64_t at =
        (static_cast<std::int64_t>(sample) * problem.heads + head) * problem.queries + first + column;
    const Range range = there ? t.seen_by(problem, sample, first + column) : Range{};
    lse[column] = there ? log2_e * t.lse[at] : 0;
    delta[column] = there ? t.delta[at] : 0;
    begin[column] = range.begin;
    end[column] = range.end;
  }
};

void own_attention_gradient(const AttentionGradient& op, const KernelArgs& args);

// The same for heads of up to 128.
void attention_gradient_on_tensor_cores(const AttentionShape& shape, const AttentionProblem& problem,
                                        const GradientTensors<__nv_bfloat16>& tensors,
                                        const KernelArgs& args);

}  // namespace muster::cuda
