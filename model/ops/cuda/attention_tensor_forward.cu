// Attention forward in bf16 on tensor cores, as attention_forward.cu does it in f32: P is rounded to bf16 for its
// product with the values, sums are f32.
//
// FLOPs: 4 B H D for each pair of a query and a key that meet. Bytes: q and o once; k and v once for each tile of 64
// queries, mostly from L2. A block is a tile of queries of one head and meets 64 keys at a time; queries and running
// sums stay in registers. Tiles that see most keys start first.
#include "model/ops/cuda/attention_forward.cuh"
#include "model/ops/cuda/attention_tensor_tiles.cuh"

namespace muster::cuda {
namespace {

constexpr int tile_keys = 64;

template <int depth>
__global__ void __launch_bounds__(tensor_threads)
    forward_tensor_tile(AttentionProblem problem, ForwardTensors<__nv_bfloat16> t, bool cached) {
  constexpr int stride = tensor_stride<depth>;
  MUSTER_DYNAMIC_SHARED(__nv_bfloat16, shared_q);
  __nv_bfloat16 *k = shared_q + tensor_rows * stride, *v = k + tile_keys * stride;
  if (cached) trim_to_cache(problem);

  const auto [warp, lane, sample, head, kv_head, first, last, own, keys, warp_keys] = query_rows(problem);
  const int size = problem.head_size;
  const float scale = problem.scale * log2_e;

  load_tile<tensor_rows, depth>(t.q, sample, head, size, first, {first, last + 1}, InOrder{}, shared_q);
  __syncthreads();
  Fragment q[depth / 16];
  MUSTER_UNROLL
  for (int d = 0; d < depth / 16; ++d)
    q[d] = load_fragment(shared_q + warp * warp_rows * stride + 16 * d, stride);

  Range ranges[2];
  float largest[2], total[2];
  MUSTER_UNROLL
  for (int r = 0; r < 2; ++r) {
    ranges[r] = own + 8 * r <= last ? keys_of(problem, sample, own + 8 * r) : Range{};
    largest[r] = -INFINITY;
    total[r] = 0;
  }
  SumBlock sums[depth / 16];
  clear(sums);
  for (int key = keys.begin / 4 * 4; key < keys.end; key += tile_keys) {
    __syncthreads();
    load_tile<tile_keys, depth>(t.k, sample, kv_head, size, key, keys, KeyColumns{}, k);
    load_tile<tile_keys, depth>(t.v, sample, kv_head, size, key, keys, KeyColumns{}, v);
    __syncthreads();
    if (key >= warp_keys.end || key + tile_keys <= warp_keys.begin) continue;
    SumBlock scores[tile_keys / 16];
    clear(scores);
    MUSTER_UNROLL
    for (int n = 0; n < tile_keys / 16; ++n) MUSTER_UNROLL
    for (int d = 0; d < depth / 16; ++d)
      multiply_add(q[d], load_fragment(k + 16 * n * stride + 16 * d, stride), scores[n]);

    MUSTER_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int own_key = key + lane % 4 * 4;
      float top = -INFINITY;
      MUSTER_UNROLL
      for (int n = 0; n < tile_keys / 16; ++n) MUSTER_UNROLL
      for (int j = 0; j < 4; ++j) {
        float& score = scores[n].halves[j / 2][2 * r + j % 2];
        score = ranges[r].contains(own_key + 16 * n + j) ? scale * score : -INFINITY;
        top = fmaxf(top, score);
      }
      const float before = largest[r];
      largest[r] = fmaxf(before, lanes_max(top));
      const float offset = largest[r] == -INFINITY ? 0 : largest[r];
      const float decay = exp2f(before - offset);
      total[r] *= decay;
      MUSTER_UNROLL
      for (int n = 0; n < tile_keys / 16; ++n) {
        float p[4];
        MUSTER_UNROLL
        for (int j = 0; j < 4; ++j) {
          p[j] = exp2f(scores[n].halves[j / 2][2 * r + j % 2] - offset);
          total[r] += p[j];
        }
        if (problem.kept_factor > 1) drop(problem, sample, head, own + 8 * r, own_key + 16 * n, p);
        MUSTER_UNROLL
        for (int j = 0; j < 4; ++j) scores[n].halves[j / 2][2 * r + j % 2] = p[j];
      }
      MUSTER_UNROLL
      for (SumBlock& block : sums) MUSTER_UNROLL
      for (int j = 0; j < 4; ++j) block.halves[j / 2][2 * r + j % 2] *= decay;
    }
    MUSTER_UNROLL
    for (int n = 0; n < tile_keys / 16; ++n) {
      const Fragment p = pack_block(scores[n]);
      MUSTER_UNROLL
      for (int d = 0; d < depth / 16; ++d)
        multiply_add(p, load_transposed(v + 16 * n * stride + 16 * d, stride), sums[d]);
    }
  }

  MUSTER_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float row_total = lanes_sum(total[r]);
    const int query = own + 8 * r;
    if (query > last) continue;
    write_row(t.o, sample, query, head, size, row_total == 0 ? 0 : 1 / row_total, sums, r);
    if (t.lse && lane % 4 == 0)
      t.lse[(static_cast<std::int64_t>(sample) * problem.heads + head) * problem.queries + query] =
          ln_2 * largest[r] + logf(row_total);
  }
}

}  // namespace

void attention_forward_on_tensor_cores(const AttentionShape& shape, const AttentionProblem& problem,
                                       const ForwardTensors<__nv_bfloat16>& tensors, bool cached,
                                       const KernelArgs& args) {
  with_tensor_depth(problem.head_size, [&](auto constant) {
    constexpr int depth = decltype(constant)::value;
    constexpr std::size_t bytes =
        (tensor_rows + 2 * tile_keys) * tensor_stride<depth> * sizeof(__nv_bfloat16);
    require_shared(args, problem.head_size, bytes);
    allow_shared(forward_tensor_tile<depth>, bytes);
    const dim3 grid(static_cast<unsigned>(divide_up(problem.queries, tensor_rows)),
                    static_cast<unsigned>(problem.heads), static_cast<unsigned>(shape.batch));
    launch(forward_tensor_tile<depth>, grid, dim3(tensor_threads), bytes, args.stream, problem, tensors,
           cached);
  });
}

}  // namespace muster::cuda
