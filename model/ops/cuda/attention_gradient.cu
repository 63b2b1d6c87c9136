// Attention backward in f32, and in bf16 for heads that are too large for tensor cores: probabilities are
// computed again from lse; no sum is shared between blocks, so that it has the same bits every time.
//
// Two kernels: a tile of queries meets its keys and gives delta and dq; a tile of keys meets the queries that
// may see it, of all heads of its group in their order, and gives dk and dv. Both compute scores and do . v:
// 7 products instead of 5, 14 B H D FLOPs for each pair of a query and a key, in place of partial sums in
// memory. Where segments are told, the first leaves to the second which keys each query sees, which it found by
// binary search. Bytes: the first reads q, do and o once and k and v once for each tile of queries; the second k and
// v once, and q and do once for each tile of keys. Tiles have 64 rows, 32 for heads beyond 64.
#include "model/ops/cuda/attention_gradient.cuh"
#include "model/ops/cuda/attention_tensor_tiles.cuh"
#include "model/ops/cuda/attention_tiles.cuh"
#include "model/ops/cuda/attention_workspace.hpp"

namespace muster::cuda {
namespace {

template <int chunks>
inline constexpr int thread_rows = chunks <= 2 ? 4 : 2;

// Floats of shared memory: two tiles of rows, two of columns, one of scores.
template <int chunks>
inline constexpr int shared_floats =
    2 * (row_groups * thread_rows<chunks> + tile_columns) * row_width<chunks> +
    row_groups* thread_rows<chunks>* score_width;

template <int rows, int chunks>
__device__ void clear(float (&sums)[rows][chunks][4]) {
  MUSTER_UNROLL
  for (int i = 0; i < rows; ++i) MUSTER_UNROLL
  for (int n = 0; n < chunks; ++n) MUSTER_UNROLL
  for (int e = 0; e < 4; ++e) sums[i][n][e] = 0;
}

template <class T, int chunks>
__device__ void write_row(const Place& place, const HeadRows<T>& to, int sample, int row, int head,
                          int head_size, float factor, float (&sums)[chunks][4]) {
  T* target = to.at(sample, row, head * head_size);
  MUSTER_UNROLL
  for (int n = 0; n < chunks; ++n) {
    MUSTER_UNROLL
    for (int e = 0; e < 4; ++e) sums[n][e] *= factor;
    store_four(target, 32 * n + 4 * place.column_group, head_size, to.vectors, sums[n]);
  }
}

template <class T, int chunks>
__global__ void __launch_bounds__(tile_threads)
    gradient_of_queries(AttentionProblem problem, GradientTensors<T> t) {
  constexpr int R = thread_rows<chunks>, rows = row_groups * R, width = row_width<chunks>;
  MUSTER_DYNAMIC_SHARED(float, q);
  float *d_o = q + rows * width, *k = d_o + rows * width, *v = k + tile_columns * width,
        *shared_scores = v + tile_columns * width;

  const Place place;
  const int sample = static_cast<int>(blockIdx.z), head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (problem.heads / problem.kv_heads), size = problem.head_size;
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * rows;
  const int last = min(first + rows, problem.queries) - 1, own = first + R * place.row_group;
  const std::int64_t statistics =
      (static_cast<std::int64_t>(sample) * problem.heads + head) * problem.queries + own;
  load_tile<rows, R, width>(t.q, sample, head, size, first, {first, last + 1}, q);
  load_tile<rows, R, width>(t.d_o, sample, head, size, first, {first, last + 1}, d_o);
  __syncthreads();

  Range ranges[R];
  float lse[R], delta[R], sums[R][chunks][4];
  clear(sums);
  MUSTER_UNROLL
  for (int i = 0; i < R; ++i) {
    const bool there = own + i <= last;
    float products = 0;
    if (there) MUSTER_UNROLL
    for (int n = 0; n < chunks; ++n) {
      const int column = 32 * n + 4 * place.column_group;
      float o[4];
      load_four(t.o.at(sample, own + i, head * size), column, size, o);
      MUSTER_UNROLL
      for (int e = 0; e < 4; ++e)
        products = fmaf(o[e], d_o[(place.row_group + i * row_groups) * width + column + e], products);
    }
    delta[i] = warp_sum<column_groups>(products);
    lse[i] = there ? log2_e * t.lse[statistics + i] : 0;
    ranges[i] = there ? keys_of(problem, sample, own + i) : Range{};
    if (there && place.column_group == 0) t.leave(problem, sample, head, own + i, delta[i], ranges[i]);
  }

  const Range keys{keys_of(problem, sample, first).begin, keys_of(problem, sample, last).end};
  const float scale = problem.scale * log2_e;
  for (int key = keys.begin / 4 * 4; key < keys.end; key += tile_columns) {
    __syncthreads();
    load_tile<tile_columns, 4, width>(t.k, sample, kv_head, size, key, keys, k);
    load_tile<tile_columns, 4, width>(t.v, sample, kv_head, size, key, keys, v);
    __syncthreads();
    float scores[R][4], slopes[R][4];
    multiply_transposed<R, width>(place, q, k, size, scores);
    multiply_transposed<R, width>(place, d_o, v, size, slopes);
    const int own_key = key + 4 * place.column_group;
    MUSTER_UNROLL
    for (int i = 0; i < R; ++i) {
      if (problem.kept_factor > 1) drop(problem, sample, head, own + i, own_key, slopes[i]);
      MUSTER_UNROLL
      for (int j = 0; j < 4; ++j) {
        const float p = probability(scores[i][j], scale, lse[i]);
        slopes[i][j] = ranges[i].contains(own_key + j) ? p * (slopes[i][j] - delta[i]) : 0;
      }
    }
    multiply_add<R, chunks>(place, slopes, shared_scores, k, sums);
  }
  MUSTER_UNROLL
  for (int i = 0; i < R; ++i)
    if (own + i <= last) write_row(place, t.dq, sample, own + i, head, size, problem.scale, sums[i]);
}

template <class T, int chunks>
__global__ void __launch_bounds__(tile_threads)
    gradient_of_keys(AttentionProblem problem, GradientTensors<T> t) {
  constexpr int R = thread_rows<chunks>, rows = row_groups * R, width = row_width<chunks>;
  MUSTER_DYNAMIC_SHARED(float, k);
  float *v = k + rows * width, *q = v + rows * width, *d_o = q + tile_columns * width,
        *shared_scores = d_o + tile_columns * width;
  __shared__ QueryColumns<tile_columns> columns;

  const Place place;
  const int sample = static_cast<int>(blockIdx.z), kv_head = static_cast<int>(blockIdx.y);
  const int group = problem.heads / problem.kv_heads, size = problem.head_size;
  const int first = static_cast<int>(blockIdx.x) * rows;
  const int last = min(first + rows, problem.keys) - 1, own = first + R * place.row_group;
  const float scale = problem.scale * log2_e;
  const Range queries = queries_of(problem, sample, first, last);
  float dk[R][chunks][4], dv[R][chunks][4];
  clear(dk);
  clear(dv);
  load_tile<rows, R, width>(t.k, sample, kv_head, size, first, {first, last + 1}, k);
  load_tile<rows, R, width>(t.v, sample, kv_head, size, first, {first, last + 1}, v);

  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int query = queries.begin; query < queries.end; query += tile_columns) {
      __syncthreads();
      load_tile<tile_columns, 4, width>(t.q, sample, head, size, query, queries, q);
      load_tile<tile_columns, 4, width>(t.d_o, sample, head, size, query, queries, d_o);
      columns.load(problem, t, sample, head, query, queries.end);
      __syncthreads();
      float scores[R][4], slopes[R][4];
      multiply_transposed<R, width>(place, k, q, size, scores);
      multiply_transposed<R, width>(place, v, d_o, size, slopes);
      MUSTER_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int column = 4 * place.column_group + j;
        const Range range{columns.begin[column], columns.end[column]};
        const float lse = columns.lse[column], delta = columns.delta[column];
        float kept[R];
        MUSTER_UNROLL
        for (int i = 0; i < R; ++i) kept[i] = 1;
        if (problem.kept_factor > 1) drop(problem, sample, head, query + column, own, kept);
        MUSTER_UNROLL
        for (int i = 0; i < R; ++i) {
          const float p = range.contains(own + i) ? probability(scores[i][j], scale, lse) : 0;
          scores[i][j] = p * kept[i];
          slopes[i][j] = range.contains(own + i) ? p * (slopes[i][j] * kept[i] - delta) : 0;
        }
      }
      multiply_add<R, chunks>(place, scores, shared_scores, d_o, dv);
      multiply_add<R, chunks>(place, slopes, shared_scores, q, dk);
    }
  MUSTER_UNROLL
  for (int i = 0; i < R; ++i)
    if (own + i <= last) {
      write_row(place, t.dk, sample, own + i, kv_head, size, problem.scale, dk[i]);
      write_row(place, t.dv, sample, own + i, kv_head, size, 1.0f, dv[i]);
    }
}

// Columns of a row that hold heads.
struct HeadColumns {
  Range ranges[3];
};

template <class T>
__global__ void clear_columns(T* rows, std::int64_t elements, int columns, HeadColumns heads) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  const int column = static_cast<int>(i % columns);
  for (const Range& range : heads.ranges)
    if (range.contains(column)) return;
  rows[i] = from_float<T>(0);
}

template <class T>
void clear_other_columns(const TensorView& tensor, const HeadColumns& heads, NativeStream stream) {
  const int columns = static_cast<int>(tensor.columns());
  int covered = 0;
  for (const Range& range : heads.ranges) covered += range.end - range.begin;
  if (covered == columns) return;
  launch(clear_columns<T>, dim3(static_cast<unsigned>(divide_up(tensor.elements(), 256))), dim3(256), 0,
         stream, tensor.as<T>(), tensor.elements(), columns, heads);
}

template <class T>
void gradient_of(const AttentionGradient& op, const KernelArgs& args) {
  const AttentionShape& shape = op.shape();
  const TensorView &d_o = args.inputs[0], &q = args.inputs[1], &kv = args.inputs[2], &o = args.inputs[3],
                   &dq = args.outputs[0], &dkv = args.outputs[op.same_source() ? 0 : 1];
  const int size = shape.head_size;
  const std::int64_t queries = q.rows() / shape.batch, keys = kv.rows() / shape.batch;

  const auto columns_of = [&](std::int64_t begin, int heads) {
    return Range{static_cast<int>(begin), static_cast<int>(begin + static_cast<std::int64_t>(heads) * size)};
  };
  const Range q_columns = columns_of(shape.q_column, shape.heads),
              k_columns = columns_of(shape.k_column, shape.kv_heads),
              v_columns = columns_of(shape.v_column, shape.kv_heads);
  if (op.same_source()) {
    clear_other_columns<T>(dq, {{q_columns, k_columns, v_columns}}, args.stream);
  } else {
    clear_other_columns<T>(dq, {{q_columns}}, args.stream);
    clear_other_columns<T>(dkv, {{k_columns, v_columns}}, args.stream);
  }

  const AttentionProblem problem =
      attention_problem(shape, queries, keys, args.inputs[5], args.inputs[6], args);
  const auto in = [&](const TensorView& tensor, std::int64_t rows, std::int64_t column) {
    return head_rows(tensor.as<const T>() + column, rows, tensor.columns(), size);
  };
  const auto out = [&](const TensorView& tensor, std::int64_t rows, std::int64_t column) {
    return head_rows(tensor.as<T>() + column, rows, tensor.columns(), size);
  };
  const GradientLayout layout(shape, queries, problem.query_starts != nullptr);
  auto* const seen = reinterpret_cast<Range*>(args.workspace + layout.seen);
  const GradientTensors<T> tensors{in(d_o, queries, 0),
                                   in(q, queries, shape.q_column),
                                   in(kv, keys, shape.k_column),
                                   in(kv, keys, shape.v_column),
                                   in(o, queries, 0),
                                   out(dq, queries, shape.q_column),
                                   out(dkv, keys, shape.k_column),
                                   out(dkv, keys, shape.v_column),
                                   args.inputs[4].as<const float>(),
                                   reinterpret_cast<float*>(args.workspace),
                                   problem.query_starts ? seen : nullptr};
  if constexpr (sizeof(T) == 2)
    if (size <= largest_tensor_head) return attention_gradient_on_tensor_cores(shape, problem, tensors, args);
  with_chunks<T>(size, [&](auto constant) {
    constexpr int chunks = decltype(constant)::value, rows = row_groups * thread_rows<chunks>;
    constexpr std::size_t bytes = shared_floats<chunks> * sizeof(float);
    require_shared(args, size, bytes);
    allow_shared(gradient_of_queries<T, chunks>, bytes);
    allow_shared(gradient_of_keys<T, chunks>, bytes);
    const auto grid = [&](std::int64_t length, int heads) {
      return dim3(static_cast<unsigned>(divide_up(length, rows)), static_cast<unsigned>(heads),
                  static_cast<unsigned>(shape.batch));
    };
    launch(gradient_of_queries<T, chunks>, grid(queries, shape.heads), dim3(tile_threads), bytes, args.stream,
           problem, tensors);
    launch(gradient_of_keys<T, chunks>, grid(keys, shape.kv_heads), dim3(tile_threads), bytes, args.stream,
           problem, tensors);
  });
}

}  // namespace

void own_attention_gradient(const AttentionGradient& op, const KernelArgs& args) {
  with_element_type(args.inputs[1].dtype(),
                    [&](auto* like) { gradient_of<std::remove_pointer_t<decltype(like)>>(op, args); });
}

}  // namespace muster::cuda
