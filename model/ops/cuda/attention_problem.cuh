// What the attention kernels share: where the rows of heads lie, which keys a query may see, what dropout keeps.
#pragma once

#include "model/ops/attention.hpp"
#include "model/ops/cuda/device.cuh"
#include "model/ops/kernel.hpp"

#ifdef __CUDACC__
#define MUSTER_UNROLL _Pragma("unroll")
#else
#define MUSTER_UNROLL
#endif

namespace muster::cuda {

inline constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

// A half-open range of positions of one sample.
struct Range {
  int begin = 0, end = 0;
  __device__ bool contains(int i) const { return i >= begin && i < end; }
};

struct AttentionProblem {
  int heads = 1, kv_heads = 1, head_size = 1;
  int queries = 0, keys = 0;  // of a sample
  bool causal = false;
  float scale = 1;
  int before = 0;  // keys that every query sees in front of those that causality counts, as behind a cache
  const std::int32_t *query_starts = nullptr, *key_starts = nullptr;  // null: a sample is a segment
  int start_count = 0;
  float kept_factor = 1;  // of the probabilities that dropout keeps; 1: it keeps all
  std::uint32_t dropped_below = 0;
  std::uint32_t random_key = 0;
  const StepScalars* scalars = nullptr;
};

// Rows of one operand. With `vectors` the rows of every head begin and end at multiples of 16 bytes.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t sample, row;  // elements from sample to sample, from row to row
  bool vectors;

  __device__ T* at(int sample_index, int row_index, int column) const {
    return data + sample_index * sample + row_index * row + column;
  }
};

template <class T>
HeadRows<T> head_rows(T* data, std::int64_t rows, std::int64_t columns, int head_size) {
  const auto whole = [](std::uint64_t bytes) { return bytes % 16 == 0; };
  return {data, rows * columns, columns,
          whole(reinterpret_cast<std::uintptr_t>(data)) &&
              whole(static_cast<std::uint64_t>(columns) * sizeof(T)) &&
              whole(static_cast<std::uint64_t>(head_size) * sizeof(T))};
}

AttentionProblem attention_problem(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                                   const TensorView& query_starts, const TensorView& key_starts,
                                   const KernelArgs& args);

// Throws when a block cannot have as much shared memory.
void require_shared(const KernelArgs& args, int head_size, std::size_t bytes);

// How many segments have begun until a row, its own included.
__device__ inline int starts_until(const std::int32_t* starts, int count, std::int64_t row) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (starts[middle] > row)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// Where a segment starts within a sample of `length` rows.
__device__ inline int start_within(const std::int32_t* starts, int segment, int sample, int length) {
  const std::int64_t start = starts[segment] - static_cast<std::int64_t>(sample) * length;
  return start < 0 ? 0 : start < length ? static_cast<int>(start) : length;
}

// The keys that a query may see. Both ends grow with the query.
__device__ inline Range keys_of(const AttentionProblem& problem, int sample, int query) {
  Range range{0, problem.keys};
  int first_query = 0;
  if (problem.query_starts) {
    const int count = problem.start_count;
    const int begun = starts_until(problem.query_starts, count,
                                   static_cast<std::int64_t>(sample) * problem.queries + query);
    const int segment = begun > 0 ? begun - 1 : 0;
    range.begin = range.end = start_within(problem.key_starts, segment, sample, problem.keys);
    if (begun == 0 || begun == count) return range;  // in no segment
    range.end = start_within(problem.key_starts, begun, sample, problem.keys);
    first_query = start_within(problem.query_starts, segment, sample, problem.queries);
  }
  if (problem.causal) range.end = min(range.end, range.begin + query - first_query + 1 + problem.before);
  return range;
}

// The queries of which some may see one of the keys [first, last].
__device__ inline Range queries_of(const AttentionProblem& problem, int sample, int first, int last) {
  if (!problem.query_starts) return {problem.causal ? min(first, problem.queries) : 0, problem.queries};
  const int count = problem.start_count;
  const std::int64_t sample_row = static_cast<std::int64_t>(sample) * problem.keys;
  const int begun = starts_until(problem.key_starts, count, sample_row + first);
  const int begun_last = starts_until(problem.key_starts, count, sample_row + last);
  const auto query_start = [&](int segment) {
    return start_within(problem.query_starts, segment, sample, problem.queries);
  };
  Range range{query_start(begun > 0 ? begun - 1 : 0), query_start(min(begun_last, count - 1))};
  if (problem.causal && begun > 0 && begun < count) {
    const int first_key = start_within(problem.key_starts, begun - 1, sample, problem.keys);
    range.begin = min(range.begin + first - first_key, query_start(begun));
  }
  return range;
}

// Of a score that is yet to be scaled, with lse in binary logarithms; backward computes it again. The exponent is at most
// 0, but that both were rounded, which for scores of 1e7 is more than a probability may differ. A NaN stays one.
__device__ inline float probability(float score, float scale, float lse) {
  constexpr float most = 0x1p-10f;
  const float exponent = fmaf(score, scale, -lse);
  return exp2f(exponent > most ? most : exponent);
}

// Multiplies the probabilities of `count` neighbouring keys, from `key` on, by what dropout makes of 1. Four
// elements share one counter; where the first is no multiple of four, a second counter is needed.
template <int count>
__device__ inline void drop(const AttentionProblem& problem, int sample, int head, int query, int key,
                            float (&factors)[count]) {
  static_assert(count <= 4);
  const std::int64_t element =
      (static_cast<std::int64_t>(head) * problem.queries + query) * problem.keys + key;
  const int shift = static_cast<int>(element % 4);
  const StepScalars& scalars = *problem.scalars;
  Philox4 counter = {static_cast<std::uint32_t>(element / 4),
                     scalars.first_slot + static_cast<std::uint32_t>(sample), scalars.step,
                     problem.random_key};
  std::uint32_t words[8];
  const Philox4 low = philox(counter, scalars.seed);
  Philox4 high{};
  if (shift + count > 4) {
    ++counter[0];
    high = philox(counter, scalars.seed);
  }
  MUSTER_UNROLL
  for (int i = 0; i < 4; ++i) {
    words[i] = low[i];
    words[4 + i] = high[i];
  }
  // By selects, so that the words stay in registers.
  MUSTER_UNROLL
  for (int i = 0; i < 7; ++i) words[i] = shift % 2 ? words[i + 1] : words[i];
  MUSTER_UNROLL
  for (int i = 0; i < count; ++i) {
    const std::uint32_t word = shift / 2 ? words[i + 2] : words[i];
    factors[i] *= word >= problem.dropped_below ? problem.kept_factor : 0.0f;
  }
}

// Elements [column, column + 4) of a row of a head, zero behind its end.
template <class T>
__device__ inline void load_four(const T* row, int column, int head_size, float (&x)[4]) {
  MUSTER_UNROLL
  for (int e = 0; e < 4; ++e) x[e] = column + e < head_size ? to_float(row[column + e]) : 0.0f;
}

template <class T>
__device__ inline void store_four(T* row, int column, int head_size, bool vectors, const float (&x)[4]) {
  if (vectors) {
    if (column >= head_size) return;
    struct alignas(4 * sizeof(T)) Four {
      T elements[4];
    };
    *reinterpret_cast<Four*>(row + column) = {from_float<T>(x[0]), from_float<T>(x[1]), from_float<T>(x[2]),
                                              from_float<T>(x[3])};
    return;
  }
  MUSTER_UNROLL
  for (int e = 0; e < 4; ++e)
    if (column + e < head_size) row[column + e] = from_float<T>(x[e]);
}

}  // namespace muster::cuda
