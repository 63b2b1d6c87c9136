// Attention forward in f32, and in bf16 for heads that are too large for tensor cores: a tile of queries
// meets the keys it may see, 32 at a time, with a running maximum and sum of each row (Milakov, Gimelshein
// 2018, "Online normalizer calculation for softmax").
//
// FLOPs: 4 B H D for each pair of a query and a key that meet, and as many for pairs that a tile holds in
// vain, on the FMA units. Bytes: q and o once; k and v once for each tile of 64 queries (32 for heads beyond
// 128), mostly from L2. A block is a tile of queries of one head; those that see most keys start first.
#include "model/ops/cuda/attention_forward.cuh"
#include "model/ops/cuda/attention_tensor_tiles.cuh"
#include "model/ops/cuda/attention_tiles.cuh"

namespace muster::cuda {
namespace {

template <int chunks>
inline constexpr int thread_rows = chunks <= 4 ? 4 : 2;

// Floats of shared memory: q, k, v, P.
template <int chunks>
inline constexpr int shared_floats =
    (row_groups * thread_rows<chunks> + 2 * tile_columns) * row_width<chunks> +
    row_groups* thread_rows<chunks>* score_width;

template <class T, int chunks>
__global__ void __launch_bounds__(tile_threads)
    forward_tile(AttentionProblem problem, ForwardTensors<T> t, bool cached) {
  constexpr int R = thread_rows<chunks>, rows = row_groups * R, width = row_width<chunks>;
  MUSTER_DYNAMIC_SHARED(float, q);
  float *k = q + rows * width, *v = k + tile_columns * width, *shared_scores = v + tile_columns * width;
  if (cached) trim_to_cache(problem);

  const Place place;
  const int sample = static_cast<int>(blockIdx.z), head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (problem.heads / problem.kv_heads);
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * rows;
  const int last = min(first + rows, problem.queries) - 1, own = first + R * place.row_group;
  Range ranges[R];
  float largest[R], total[R], sums[R][chunks][4];
  MUSTER_UNROLL
  for (int i = 0; i < R; ++i) {
    ranges[i] = own + i <= last ? keys_of(problem, sample, own + i) : Range{};
    largest[i] = -INFINITY;
    total[i] = 0;
    MUSTER_UNROLL
    for (int n = 0; n < chunks; ++n) MUSTER_UNROLL
    for (int e = 0; e < 4; ++e) sums[i][n][e] = 0;
  }
  const Range keys{keys_of(problem, sample, first).begin, keys_of(problem, sample, last).end};
  const float scale = problem.scale * log2_e;

  load_tile<rows, R, width>(t.q, sample, head, problem.head_size, first, {first, last + 1}, q);
  // From a multiple of four on, so that dropout needs one counter for four keys where it can.
  for (int key = keys.begin / 4 * 4; key < keys.end; key += tile_columns) {
    __syncthreads();
    load_tile<tile_columns, 4, width>(t.k, sample, kv_head, problem.head_size, key, keys, k);
    load_tile<tile_columns, 4, width>(t.v, sample, kv_head, problem.head_size, key, keys, v);
    __syncthreads();
    float scores[R][4];
    multiply_transposed<R, width>(place, q, k, problem.head_size, scores);
    const int own_key = key + 4 * place.column_group;
    MUSTER_UNROLL
    for (int i = 0; i < R; ++i) {
      float top = -INFINITY;
      MUSTER_UNROLL
      for (int j = 0; j < 4; ++j) {
        scores[i][j] = ranges[i].contains(own_key + j) ? scale * scores[i][j] : -INFINITY;
        top = fmaxf(top, scores[i][j]);
      }
      const float before = largest[i];
      largest[i] = fmaxf(before, warp_max<column_groups>(top));
      const float offset = largest[i] == -INFINITY ? 0 : largest[i];
      const float decay = exp2f(before - offset);
      total[i] *= decay;
      MUSTER_UNROLL
      for (int j = 0; j < 4; ++j) {
        scores[i][j] = exp2f(scores[i][j] - offset);
        total[i] += scores[i][j];
      }
      MUSTER_UNROLL
      for (int n = 0; n < chunks; ++n) MUSTER_UNROLL
      for (int e = 0; e < 4; ++e) sums[i][n][e] *= decay;
      if (problem.kept_factor > 1) drop(problem, sample, head, own + i, own_key, scores[i]);
    }
    multiply_add<R, chunks>(place, scores, shared_scores, v, sums);
  }

  MUSTER_UNROLL
  for (int i = 0; i < R; ++i) {
    const float row_total = warp_sum<column_groups>(total[i]);
    if (own + i > last) continue;
    const float inverse = row_total == 0 ? 0 : 1 / row_total;
    T* o = t.o.at(sample, own + i, head * problem.head_size);
    MUSTER_UNROLL
    for (int n = 0; n < chunks; ++n) {
      MUSTER_UNROLL
      for (int e = 0; e < 4; ++e) sums[i][n][e] *= inverse;
      store_four(o, 32 * n + 4 * place.column_group, problem.head_size, t.o.vectors, sums[i][n]);
    }
    if (t.lse && place.column_group == 0)
      t.lse[(static_cast<std::int64_t>(sample) * problem.heads + head) * problem.queries + own + i] =
          ln_2 * largest[i] + logf(row_total);
  }
}

}  // namespace

template <class T>
void attention_forward(const AttentionShape& shape, const AttentionProblem& problem,
                       const ForwardTensors<T>& tensors, bool cached, const KernelArgs& args) {
  if constexpr (sizeof(T) == 2)
    if (problem.head_size <= largest_tensor_head)
      return attention_forward_on_tensor_cores(shape, problem, tensors, cached, args);
  with_chunks<T>(problem.head_size, [&](auto constant) {
    constexpr int chunks = decltype(constant)::value;
    constexpr std::size_t bytes = shared_floats<chunks> * sizeof(float);
    require_shared(args, problem.head_size, bytes);
    allow_shared(forward_tile<T, chunks>, bytes);
    const dim3 grid(static_cast<unsigned>(divide_up(problem.queries, row_groups * thread_rows<chunks>)),
                    static_cast<unsigned>(problem.heads), static_cast<unsigned>(shape.batch));
    launch(forward_tile<T, chunks>, grid, dim3(tile_threads), bytes, args.stream, problem, tensors, cached);
  });
}

template void attention_forward(const AttentionShape&, const AttentionProblem&, const ForwardTensors<float>&,
                                bool, const KernelArgs&);
template void attention_forward(const AttentionShape&, const AttentionProblem&,
                                const ForwardTensors<__nv_bfloat16>&, bool, const KernelArgs&);

}  // namespace muster::cuda
