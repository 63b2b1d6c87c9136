// Attention behind a cache of keys and values, whose length the device alone knows. Many queries go as forward
// does it. A single one of each sample is bound by the bytes of the cache:
//
// Bytes: 2 kv_length B H_kv D elements once for each 8 query heads of a group, and 2 D / 128 floats of partial
// results for each of them. FLOPs: 4 kv_length B H D. A block takes 128 keys of one key and value head and up to
// 8 query heads that read it; the lanes of a warp lie along the head, 16 bytes each, so that several keys are
// read at once. A second kernel adds the blocks' results in the order of their keys.
#include <bit>

#include "model/ops/attention.hpp"
#include "model/ops/cuda/attention_forward.cuh"
#include "model/ops/cuda/attention_workspace.hpp"
#include "model/ops/cuda/context.hpp"
#include "model/ops/cuda/kernels.hpp"

namespace muster::cuda {
namespace {

constexpr int split_threads = 128, split_warps = split_threads / warp_size;

// Elements [column, column + size) of a row of a head, zero behind its end.
template <class T>
__device__ Vector<T> load_columns(const T* row, int column, int head_size, bool vectors) {
  if (vectors) return load_vector(row + column);
  Vector<T> x{};
  MUSTER_UNROLL
  for (int e = 0; e < Vector<T>::size; ++e)
    if (column + e < head_size) x[e] = row[column + e];
  return x;
}

// Copies the new keys and values behind those of the cache. 2 B T_q H_kv D elements are read and written.
template <class T>
__global__ void append(AttentionProblem problem, HeadRows<const T> k, HeadRows<const T> v, HeadRows<T> cache,
                       std::int64_t elements) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  const int columns = problem.kv_heads * problem.head_size, column = static_cast<int>(i % (2 * columns));
  const std::int64_t row = i / (2 * columns);
  const int sample = static_cast<int>(row / problem.queries), query = static_cast<int>(row % problem.queries);
  const std::int64_t position = static_cast<std::int64_t>(problem.scalars->kv_length) + query;
  if (position >= problem.keys) return;
  *cache.at(sample, static_cast<int>(position), column) =
      column < columns ? *k.at(sample, query, column) : *v.at(sample, query, column - columns);
}

// What a block leaves: the sum of 2^(score - largest) v and of 2^(score - largest).
struct Partial {
  float* sums;         // [B, H, splits, D]
  float2* statistics;  // [B, H, splits]: largest, in units of ln 2, and total
};

template <class T>
struct SingleQuery {
  HeadRows<const T> q, k, v;
  Partial partial;
  int splits;
};

// Floats of shared memory: scores, q, and the sums of threads that share columns.
template <class T, int heads>
int split_shared_floats(int head_size) {
  return heads *
         (cached_split_keys + static_cast<int>(divide_up(head_size, Vector<T>::size)) * Vector<T>::size +
          split_threads * Vector<T>::size);
}

template <class T, int heads>
__global__ void __launch_bounds__(split_threads)
    attend_split(AttentionProblem problem, SingleQuery<T> t, int key_lanes) {
  constexpr int size = Vector<T>::size;
  MUSTER_DYNAMIC_SHARED(float, scores);  // [heads][cached_split_keys]
  const int depth = problem.head_size, vectors = (depth + size - 1) / size, width = vectors * size;
  float *q = scores + heads * cached_split_keys, *shared_sums = q + heads * width;
  const int thread = static_cast<int>(threadIdx.x);
  const int group = problem.heads / problem.kv_heads, passes = (group + heads - 1) / heads;
  const int sample = static_cast<int>(blockIdx.z), split = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y) / passes;
  const int first_head = kv_head * group + static_cast<int>(blockIdx.y) % passes * heads;
  const int head_count = min(heads, (kv_head + 1) * group - first_head);
  const int first = split * cached_split_keys;
  const int keys = min(problem.keys, static_cast<int>(problem.scalars->kv_length) + 1);
  const int count = min(cached_split_keys, keys - first);
  if (count <= 0) return;

  for (int i = thread; i < heads * width; i += split_threads) {
    const int head = i / width, column = i % width;
    const bool there = head < head_count && column < depth;
    q[i] = there ? to_float(*t.q.at(sample, 0, (first_head + head) * depth + column)) : 0.0f;
  }
  __syncthreads();

  const int lane = thread % key_lanes;
  for (int base = 0; base < count; base += split_threads / key_lanes) {
    const int key = base + thread / key_lanes;
    float products[heads] = {};
    if (key < count)
      for (int vector = lane; vector < vectors; vector += key_lanes) {
        const Vector<T> k =
            load_columns(t.k.at(sample, first + key, kv_head * depth), vector * size, depth, t.k.vectors);
        MUSTER_UNROLL
        for (int head = 0; head < heads; ++head) MUSTER_UNROLL
        for (int e = 0; e < size; ++e)
          products[head] = fmaf(to_float(k[e]), q[head * width + vector * size + e], products[head]);
      }
    MUSTER_UNROLL
    for (int head = 0; head < heads; ++head) {
      for (int distance = key_lanes / 2; distance > 0; distance /= 2)
        products[head] += __shfl_xor_sync(all_lanes, products[head], distance);
      if (lane == 0 && key < count)
        scores[head * cached_split_keys + key] = problem.scale * log2_e * products[head];
    }
  }
  __syncthreads();

  for (int head = thread / warp_size; head < head_count; head += split_warps) {
    float* row = scores + head * cached_split_keys;
    float largest = -INFINITY, total = 0;
    for (int key = thread % warp_size; key < count; key += warp_size) largest = fmaxf(largest, row[key]);
    largest = warp_max(largest);
    for (int key = thread % warp_size; key < count; key += warp_size) {
      row[key] = exp2f(row[key] - (largest == -INFINITY ? 0 : largest));
      total += row[key];
    }
    total = warp_sum(total);
    if (thread % warp_size == 0)
      t.partial
          .statistics[(static_cast<std::int64_t>(sample) * problem.heads + first_head + head) * t.splits +
                      split] = make_float2(largest, total);
  }
  __syncthreads();

  const int slots = split_threads / vectors, slot = thread / vectors, vector = thread % vectors;
  if (slot < slots) {
    float sums[heads][size] = {};
    for (int key = slot; key < count; key += slots) {
      const Vector<T> v =
          load_columns(t.v.at(sample, first + key, kv_head * depth), vector * size, depth, t.v.vectors);
      MUSTER_UNROLL
      for (int head = 0; head < heads; ++head) {
        if (head >= head_count) break;
        const float p = scores[head * cached_split_keys + key];
        MUSTER_UNROLL
        for (int e = 0; e < size; ++e) sums[head][e] = fmaf(p, to_float(v[e]), sums[head][e]);
      }
    }
    MUSTER_UNROLL
    for (int head = 0; head < heads; ++head) MUSTER_UNROLL
    for (int e = 0; e < size; ++e)
      shared_sums[(slot * heads + head) * width + vector * size + e] = sums[head][e];
  }
  __syncthreads();
  for (int i = thread; i < head_count * depth; i += split_threads) {
    const int head = i / depth, column = i % depth;
    float sum = 0;
    for (int s = 0; s < slots; ++s) sum += shared_sums[(s * heads + head) * width + column];
    t.partial
        .sums[((static_cast<std::int64_t>(sample) * problem.heads + first_head + head) * t.splits + split) *
                  depth +
              column] = sum;
  }
}

// A block adds the splits of one head.
template <class T>
__global__ void __launch_bounds__(split_threads)
    add_splits(AttentionProblem problem, Partial partial, int splits, HeadRows<T> o) {
  const int head = static_cast<int>(blockIdx.x), sample = static_cast<int>(blockIdx.y),
            depth = problem.head_size;
  const int keys = min(problem.keys, static_cast<int>(problem.scalars->kv_length) + 1);
  const int used = (keys + cached_split_keys - 1) / cached_split_keys;
  const std::int64_t first = (static_cast<std::int64_t>(sample) * problem.heads + head) * splits;
  float largest = -INFINITY;
  for (int s = 0; s < used; ++s) largest = fmaxf(largest, partial.statistics[first + s].x);
  if (largest == -INFINITY) largest = 0;
  for (int column = static_cast<int>(threadIdx.x); column < depth; column += split_threads) {
    float total = 0, sum = 0;
    for (int s = 0; s < used; ++s) {
      const float2 statistics = partial.statistics[first + s];
      const float weight = exp2f(statistics.x - largest);
      total = fmaf(weight, statistics.y, total);
      sum = fmaf(weight, partial.sums[(first + s) * depth + column], sum);
    }
    *o.at(sample, 0, head * depth + column) = from_float<T>(sum / total);
  }
}

template <class T, int heads>
void single_query(const AttentionShape& shape, const AttentionProblem& problem, const ForwardTensors<T>& t,
                  const KernelArgs& args) {
  const int splits = static_cast<int>(cached_splits(problem.keys));
  const std::int64_t rows = shape.batch * shape.heads * splits;
  auto* statistics = reinterpret_cast<float2*>(args.workspace);
  const Partial partial{reinterpret_cast<float*>(statistics + rows), statistics};
  const int vectors = static_cast<int>(divide_up(shape.head_size, Vector<T>::size));
  const int key_lanes = std::min(warp_size, static_cast<int>(std::bit_ceil(static_cast<unsigned>(vectors))));
  const std::size_t bytes =
      static_cast<std::size_t>(split_shared_floats<T, heads>(shape.head_size)) * sizeof(float);
  const auto passes = static_cast<unsigned>(divide_up(shape.heads / shape.kv_heads, heads));
  const auto batch = static_cast<unsigned>(shape.batch);
  launch(attend_split<T, heads>,
         dim3(static_cast<unsigned>(splits), static_cast<unsigned>(shape.kv_heads) * passes, batch),
         dim3(split_threads), bytes, args.stream, problem, SingleQuery<T>{t.q, t.k, t.v, partial, splits},
         key_lanes);
  launch(add_splits<T>, dim3(static_cast<unsigned>(shape.heads), batch), dim3(split_threads), 0, args.stream,
         problem, partial, splits, t.o);
}

template <class T>
void cached_attention_of(AttentionShape shape, const KernelArgs& args) {
  const TensorView &qkv = args.inputs[0], &cache = args.inputs[1], &o = args.outputs[0];
  const std::int64_t queries = qkv.rows() / shape.batch, room = cache.rows() / shape.batch;
  const std::int64_t columns = static_cast<std::int64_t>(shape.kv_heads) * shape.head_size;
  check(args.scalars != nullptr, "a cache has a length");
  shape.causal = true;
  shape.dropout = 0;
  const AttentionProblem problem = attention_problem(shape, queries, room, {}, {}, args);
  const auto fresh = [&](std::int64_t column) {
    return head_rows(qkv.as<const T>() + column, queries, qkv.columns(), shape.head_size);
  };
  const auto cached = [&](std::int64_t column) {
    return head_rows(cache.as<const T>() + column, room, cache.columns(), shape.head_size);
  };
  const std::int64_t elements = 2 * shape.batch * queries * columns;
  launch(append<T>, dim3(static_cast<unsigned>(divide_up(elements, 256))), dim3(256), 0, args.stream, problem,
         fresh(shape.k_column), fresh(shape.v_column),
         head_rows(cache.as<T>(), room, cache.columns(), shape.head_size), elements);
  const ForwardTensors<T> tensors{fresh(shape.q_column), cached(0), cached(columns),
                                  head_rows(o.as<T>(), queries, o.columns(), shape.head_size)};
  if (queries > 1)
    attention_forward(shape, problem, tensors, true, args);
  else if (shape.heads == shape.kv_heads)
    single_query<T, 1>(shape, problem, tensors, args);
  else
    single_query<T, 8>(shape, problem, tensors, args);
}

}  // namespace

void cached_attention(const Op& op, const KernelArgs& args) {
  const AttentionShape& shape = static_cast<const CachedAttention&>(op).shape();
  with_element_type(args.inputs[0].dtype(), [&](auto* like) {
    cached_attention_of<std::remove_pointer_t<decltype(like)>>(shape, args);
  });
}

}  // namespace muster::cuda
