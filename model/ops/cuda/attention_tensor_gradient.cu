// Attention backward in bf16 on tensor cores, cut as attention_gradient.cu cuts it: P and dS are rounded to bf16 for
// their products, sums are f32.
//
// FLOPs: 14 B H D for each pair of a query and a key that meet (7 products, two of them twice). Bytes: the first kernel
// reads q, do and o once and k and v once for each tile of 64 queries; the second k and v once, and q and do once for
// each tile of 64 keys. Both meet 32 columns at a time.
#include "model/ops/cuda/attention_gradient.cuh"
#include "model/ops/cuda/attention_tensor_tiles.cuh"

namespace muster::cuda {
namespace {

using bf = __nv_bfloat16;
constexpr int tile_columns = 32;

template <int depth>
__global__ void __launch_bounds__(tensor_threads)
    tensor_gradient_of_queries(AttentionProblem problem, GradientTensors<bf> t) {
  constexpr int stride = tensor_stride<depth>;
  MUSTER_DYNAMIC_SHARED(bf, shared_q);
  bf *shared_d_o = shared_q + tensor_rows * stride, *k = shared_d_o + tensor_rows * stride,
     *v = k + tile_columns * stride;

  const auto [warp, lane, sample, head, kv_head, first, last, own, keys, warp_keys] = query_rows(problem);
  const int size = problem.head_size;
  const float scale = problem.scale * log2_e;

  load_tile<tensor_rows, depth>(t.q, sample, head, size, first, {first, last + 1}, InOrder{}, shared_q);
  load_tile<tensor_rows, depth>(t.d_o, sample, head, size, first, {first, last + 1}, InOrder{}, shared_d_o);
  __syncthreads();
  Fragment q[depth / 16], d_o[depth / 16];
  MUSTER_UNROLL
  for (int d = 0; d < depth / 16; ++d) {
    q[d] = load_fragment(shared_q + warp * warp_rows * stride + 16 * d, stride);
    d_o[d] = load_fragment(shared_d_o + warp * warp_rows * stride + 16 * d, stride);
  }

  Range ranges[2];
  float lse[2], delta[2];
  MUSTER_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int query = own + 8 * r;
    const bool there = query <= last;
    const std::int64_t at =
        (static_cast<std::int64_t>(sample) * problem.heads + head) * problem.queries + query;
    float products = 0;
    if (there)
      for (int column = lane % 4 * 4; column < size; column += 16) {
        float o[4];
        load_four(t.o.at(sample, query, head * size), column, size, o);
        MUSTER_UNROLL
        for (int e = 0; e < 4; ++e)
          products = fmaf(o[e], to_float(shared_d_o[(query - first) * stride + column + e]), products);
      }
    delta[r] = lanes_sum(products);
    lse[r] = there ? log2_e * t.lse[at] : 0;
    ranges[r] = there ? keys_of(problem, sample, query) : Range{};
    if (there && lane % 4 == 0) t.leave(problem, sample, head, query, delta[r], ranges[r]);
  }

  SumBlock sums[depth / 16];
  clear(sums);
  for (int key = keys.begin / 4 * 4; key < keys.end; key += tile_columns) {
    __syncthreads();
    load_tile<tile_columns, depth>(t.k, sample, kv_head, size, key, keys, KeyColumns{}, k);
    load_tile<tile_columns, depth>(t.v, sample, kv_head, size, key, keys, KeyColumns{}, v);
    __syncthreads();
    if (key >= warp_keys.end || key + tile_columns <= warp_keys.begin) continue;
    SumBlock scores[tile_columns / 16], slopes[tile_columns / 16];
    clear(scores);
    clear(slopes);
    MUSTER_UNROLL
    for (int n = 0; n < tile_columns / 16; ++n) MUSTER_UNROLL
    for (int d = 0; d < depth / 16; ++d) {
      multiply_add(q[d], load_fragment(k + 16 * n * stride + 16 * d, stride), scores[n]);
      multiply_add(d_o[d], load_fragment(v + 16 * n * stride + 16 * d, stride), slopes[n]);
    }
    MUSTER_UNROLL
    for (int n = 0; n < tile_columns / 16; ++n) {
      MUSTER_UNROLL
      for (int r = 0; r < 2; ++r) {
        const int own_key = key + 16 * n + lane % 4 * 4;
        float kept[4] = {1, 1, 1, 1};
        if (problem.kept_factor > 1) drop(problem, sample, head, own + 8 * r, own_key, kept);
        MUSTER_UNROLL
        for (int j = 0; j < 4; ++j) {
          float& slope = slopes[n].halves[j / 2][2 * r + j % 2];
          const float p = probability(scores[n].halves[j / 2][2 * r + j % 2], scale, lse[r]);
          slope = ranges[r].contains(own_key + j) ? p * (slope * kept[j] - delta[r]) : 0;
        }
      }
      const Fragment ds = pack_block(slopes[n]);
      MUSTER_UNROLL
      for (int d = 0; d < depth / 16; ++d)
        multiply_add(ds, load_transposed(k + 16 * n * stride + 16 * d, stride), sums[d]);
    }
  }
  MUSTER_UNROLL
  for (int r = 0; r < 2; ++r)
    if (own + 8 * r <= last) write_row(t.dq, sample, own + 8 * r, head, size, problem.scale, sums, r);
}

template <int depth>
__global__ void __launch_bounds__(tensor_threads)
    tensor_gradient_of_keys(AttentionProblem problem, GradientTensors<bf> t) {
  constexpr int stride = tensor_stride<depth>;
  MUSTER_DYNAMIC_SHARED(bf, k);
  bf *v = k + tensor_rows * stride, *q = v + tensor_rows * stride, *d_o = q + tile_columns * stride;
  __shared__ QueryColumns<tile_columns> columns;

  const int warp = static_cast<int>(threadIdx.x) / warp_size,
            lane = static_cast<int>(threadIdx.x) % warp_size;
  const int sample = static_cast<int>(blockIdx.z), kv_head = static_cast<int>(blockIdx.y);
  const int group = problem.heads / problem.kv_heads, size = problem.head_size;
  const int first = static_cast<int>(blockIdx.x) * tensor_rows,
            last = min(first + tensor_rows, problem.keys) - 1;
  const int warp_first = first + warp * warp_rows, own = warp_first + lane / 4 * 2;  // and own + 1
  const float scale = problem.scale * log2_e;
  const Range queries = queries_of(problem, sample, first, last);
  Range warp_queries;
  if (warp_first <= last)
    warp_queries = queries_of(problem, sample, warp_first, min(warp_first + warp_rows - 1, last));
  load_tile<tensor_rows, depth>(t.k, sample, kv_head, size, first, {first, last + 1}, KeyRows{}, k);
  load_tile<tensor_rows, depth>(t.v, sample, kv_head, size, first, {first, last + 1}, KeyRows{}, v);
  const bf *warp_k = k + warp * warp_rows * stride, *warp_v = v + warp * warp_rows * stride;

  SumBlock dk[depth / 16], dv[depth / 16];
  clear(dk);
  clear(dv);
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int query = queries.begin; query < queries.end; query += tile_columns) {
      __syncthreads();
      load_tile<tile_columns, depth>(t.q, sample, head, size, query, queries, InOrder{}, q);
      load_tile<tile_columns, depth>(t.d_o, sample, head, size, query, queries, InOrder{}, d_o);
      columns.load(problem, t, sample, head, query, queries.end);
      __syncthreads();
      if (query >= warp_queries.end || query + tile_columns <= warp_queries.begin) continue;
      SumBlock scores[tile_columns / 16], slopes[tile_columns / 16];
      clear(scores);
      clear(slopes);
      MUSTER_UNROLL
      for (int d = 0; d < depth / 16; ++d) {
        const Fragment keys = load_fragment(warp_k + 16 * d, stride),
                       values = load_fragment(warp_v + 16 * d, stride);
        MUSTER_UNROLL
        for (int n = 0; n < tile_columns / 16; ++n) {
          multiply_add(keys, load_fragment(q + 16 * n * stride + 16 * d, stride), scores[n]);
          multiply_add(values, load_fragment(d_o + 16 * n * stride + 16 * d, stride), slopes[n]);
        }
      }
      MUSTER_UNROLL
      for (int n = 0; n < tile_columns / 16; ++n) {
        MUSTER_UNROLL
        for (int j = 0; j < 4; ++j) {
          const int column = 16 * n + j / 2 * 8 + lane % 4 * 2 + j % 2;
          const Range range{columns.begin[column], columns.end[column]};
          const float lse = columns.lse[column], delta = columns.delta[column];
          float kept[2] = {1, 1};
          if (problem.kept_factor > 1) drop(problem, sample, head, query + column, own, kept);
          MUSTER_UNROLL
          for (int r = 0; r < 2; ++r) {
            float &score = scores[n].halves[j / 2][2 * r + j % 2],
                  &slope = slopes[n].halves[j / 2][2 * r + j % 2];
            const bool seen = range.contains(own + r);
            const float p = probability(score, scale, lse);
            score = seen ? p * kept[r] : 0;
            slope = seen ? p * (slope * kept[r] - delta) : 0;
          }
        }
        const Fragment p = pack_block(scores[n]), ds = pack_block(slopes[n]);
        MUSTER_UNROLL
        for (int d = 0; d < depth / 16; ++d) {
          multiply_add(p, load_transposed(d_o + 16 * n * stride + 16 * d, stride), dv[d]);
          multiply_add(ds, load_transposed(q + 16 * n * stride + 16 * d, stride), dk[d]);
        }
      }
    }
  MUSTER_UNROLL
  for (int r = 0; r < 2; ++r)
    if (own + r <= last) {
      write_row(t.dk, sample, own + r, kv_head, size, problem.scale, dk, r);
      write_row(t.dv, sample, own + r, kv_head, size, 1.0f, dv, r);
    }
}

}  // namespace

void attention_gradient_on_tensor_cores(const AttentionShape& shape, const AttentionProblem& problem,
                                        const GradientTensors<__nv_bfloat16>& tensors,
                                        const KernelArgs& args) {
  with_tensor_depth(problem.head_size, [&](auto constant) {
    constexpr int depth = decltype(constant)::value;
    constexpr std::size_t bytes = 2 * (tensor_rows + tile_columns) * tensor_stride<depth> * sizeof(bf);
    require_shared(args, problem.head_size, bytes);
    allow_shared(tensor_gradient_of_queries<depth>, bytes);
    allow_shared(tensor_gradient_of_keys<depth>, bytes);
    const auto grid = [&](int length, int heads) {
      return dim3(static_cast<unsigned>(divide_up(length, tensor_rows)), static_cast<unsigned>(heads),
                  static_cast<unsigned>(shape.batch));
    };
    launch(tensor_gradient_of_queries<depth>, grid(problem.queries, problem.heads), dim3(tensor_threads),
           bytes, args.stream, problem, tensors);
    launch(tensor_gradient_of_keys<depth>, grid(problem.keys, problem.kv_heads), dim3(tensor_threads), bytes,
           args.stream, problem, tensors);
  });
}

}  // namespace muster::cuda
