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
  const std::int32_t* document_starts = nullptr;  // null: a sample is one document
  int document_count = 0;
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
                                   const TensorView& document_starts, const KernelArgs& args);

// Throws when a block cannot have as much shared memory.
void require_shared(const KernelArgs& args, int head_size, std::size_t bytes);

// The document of a position, within the sample; `length` positions.
__device__ inline Range document_of(const AttentionProblem& problem, int sample, int position, int length) {
  Range range{0, length};
  if (!problem.document_starts) return range;
  const std::int64_t first = static_cast<std::int64_t>(sample) * length;
  int low = 0, high = problem.document_count;  // the first start behind the position lies in [low, high]
  while (low < high) {
    const int middle = (low + high) / 2;
    if (problem.document_starts[middle] > first + position)
      high = middle;
    else
      low = middle + 1;
  }
  if (low > 0) {
    const std::int64_t begin = problem.document_starts[low - 1] - first;
    range.begin = begin > 0 ? static_cast<int>(begin) : 0;
  }
  if (low < problem.document_count) {
    const std::int64_t end = problem.document_starts[low] - first;
    range.end = end < length ? static_cast<int>(end) : length;
  }
  return range;
}

// The keys that a query may see. Both ends grow with the query.
__device__ inline Range keys_of(const AttentionProblem& problem, int sample, int query) {
  Range range = document_of(problem, sample, query, problem.keys);
  if (problem.causal) range.end = min(range.end, query + 1 + problem.keys - problem.queries);
  range.end = max(range.begin, range.end);
  return range;
}

// The queries of which some may see one of the keys [first, last].
__device__ inline Range queries_of(const AttentionProblem& problem, int sample, int first, int last) {
  Range range{0, problem.queries};
  if (problem.document_starts)  // as many keys as queries
    range = {document_of(problem, sample, first, problem.keys).begin,
             document_of(problem, sample, last, problem.keys).end};
  if (problem.causal) range.begin = max(range.begin, first - (problem.keys - problem.queries));
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
