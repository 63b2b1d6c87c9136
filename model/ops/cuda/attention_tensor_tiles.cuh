// Tiles of attention in bf16 for tensor cores.
//
// A block of four warps computes a tile of 64 rows, 16 a warp, against columns that come in blocks of 16. Rows of
// shared memory have eight elements to spare, an odd number of 16-byte units for every padded head size.
#pragma once

#include "model/ops/cuda/attention_problem.cuh"
#include "model/ops/cuda/attention_workspace.hpp"
#include "model/ops/cuda/fragments.cuh"

namespace muster::cuda {

inline constexpr int tensor_threads = 128, warp_rows = 16, tensor_rows = 64;
// Larger heads would need more registers than a thread has.
inline constexpr int largest_tensor_head = 128;

template <int depth>
inline constexpr int tensor_stride = depth + 8;

// Where a row of a tile goes among the 16 of its block.
// A lane's sums lie at two neighbouring columns of each half of a block: keys as columns are placed so that these
// are four neighbouring keys, which share a counter of dropout.
struct KeyColumns {
  __device__ static int place(int key) { return key % 4 / 2 * 8 + key / 4 * 2 + key % 2; }
};
// Keys as rows: a lane's rows g and g + 8 are neighbouring keys.
struct KeyRows {
  __device__ static int place(int key) { return key % 2 * 8 + key / 2; }
};
struct InOrder {
  __device__ static int place(int row) { return row; }
};

// Rows [first, first + count) of a head; zero outside of `valid` and behind the head's columns.
template <int count, int depth, class Order>
__device__ inline void load_tile(const HeadRows<const __nv_bfloat16>& from, int sample, int head,
                                 int head_size, int first, Range valid, Order, __nv_bfloat16* to) {
  constexpr int size = Vector<__nv_bfloat16>::size, vectors = depth / size;
  for (int i = static_cast<int>(threadIdx.x); i < count * vectors; i += tensor_threads) {
    const int row = i / vectors, column = i % vectors * size;
    Vector<__nv_bfloat16> x{};
    if (valid.contains(first + row)) {
      const __nv_bfloat16* at = from.at(sample, first + row, head * head_size + column);
      if (from.vectors) {
        if (column < head_size) x = load_vector(at);
      } else {
        MUSTER_UNROLL
        for (int e = 0; e < size; ++e)
          if (column + e < head_size) x[e] = at[e];
      }
    }
    store_vector(to + (row / 16 * 16 + Order::place(row % 16)) * tensor_stride<depth> + column, x);
  }
}

// Which queries a block and its threads work on, and the keys that any of these may see.
struct QueryRows {
  int warp, lane, sample, head, kv_head;
  int first, last;  // of the block's queries
  int own;          // a thread has this query and own + 8
  Range keys, warp_keys;
};
// The longest rows of a causal mask go first.
__device__ inline QueryRows query_rows(const AttentionProblem& problem) {
  QueryRows rows;
  rows.warp = static_cast<int>(threadIdx.x) / warp_size;
  rows.lane = static_cast<int>(threadIdx.x) % warp_size;
  rows.sample = static_cast<int>(blockIdx.z);
  rows.head = static_cast<int>(blockIdx.y);
  rows.kv_head = rows.head / (problem.heads / problem.kv_heads);
  rows.first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * tensor_rows;
  rows.last = min(rows.first + tensor_rows, problem.queries) - 1;
  const int warp_first = rows.first + rows.warp * warp_rows;
  rows.own = warp_first + rows.lane / 4;
  rows.keys = {keys_of(problem, rows.sample, rows.first).begin, keys_of(problem, rows.sample, rows.last).end};
  rows.warp_keys = {};
  if (warp_first <= rows.last)
    rows.warp_keys = {keys_of(problem, rows.sample, warp_first).begin,
                      keys_of(problem, rows.sample, min(warp_first + warp_rows - 1, rows.last)).end};
  return rows;
}

template <int blocks>
__device__ inline void clear(SumBlock (&sums)[blocks]) {
  MUSTER_UNROLL
  for (SumBlock& block : sums) MUSTER_UNROLL
  for (int i = 0; i < 8; ++i) block.halves[i / 4][i % 4] = 0;
}

// Over the four lanes of a row; all of them get the result.
__device__ inline float lanes_sum(float x) {
  x += __shfl_xor_sync(all_lanes, x, 2);
  return x + __shfl_xor_sync(all_lanes, x, 1);
}
__device__ inline float lanes_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 2));
  return fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
}

// Row `half` (g or g + 8) of the sums, times `factor`, as a row of a head.
template <int blocks>
__device__ inline void write_row(const HeadRows<__nv_bfloat16>& to, int sample, int row, int head,
                                 int head_size, float factor, const SumBlock (&sums)[blocks], int half) {
  __nv_bfloat16* target = to.at(sample, row, head * head_size);
  const int lane_column = static_cast<int>(threadIdx.x) % 4 * 2;
  MUSTER_UNROLL
  for (int n = 0; n < 2 * blocks; ++n) {
    const int column = 8 * n + lane_column;
    const auto& sum = sums[n / 2].halves[n % 2];
    const float low = factor * (half == 0 ? sum[0] : sum[2]), high = factor * (half == 0 ? sum[1] : sum[3]);
    if (to.vectors) {
      if (column < head_size) *reinterpret_cast<std::uint32_t*>(target + column) = pack_pair(low, high);
    } else {
      if (column < head_size) target[column] = from_float<__nv_bfloat16>(low);
      if (column + 1 < head_size) target[column + 1] = from_float<__nv_bfloat16>(high);
    }
  }
}

// Calls body with a constant: the columns that a head is padded to.
template <class Body>
void with_tensor_depth(int head_size, Body&& body) {
  if (head_size <= 64) return body(std::integral_constant<int, 64>{});
  if (head_size <= 96) return body(std::integral_constant<int, 96>{});
  check(head_size <= largest_tensor_head, "larger heads are computed elsewhere");
  return body(std::integral_constant<int, 128>{});
}

}  // namespace muster::cuda
