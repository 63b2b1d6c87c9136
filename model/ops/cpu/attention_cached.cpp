// Attention behind a cache of keys and values: many queries as forward does it, a single one in one pass.
#include "core/parallel.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/cpu/attention_forward.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

using attention_forward::forward;
using attention_forward::Lengths;
using attention_forward::Sources;

// What a single query needs: no row of keys meets a second query, so that packing them would not pay.
struct SingleWorkspace {
  float *query, *scores;
  std::uint64_t bytes;

  SingleWorkspace(std::byte* base, std::int64_t head_size, std::int64_t keys) {
    Pieces pieces(base);
    query = pieces.take<float>(round_up(head_size, lanes));
    scores = pieces.take<float>(round_up(keys, lanes));
    bytes = pieces.bytes();
  }
};

// Sums of up to `vectors` * lanes columns of the values, weighted by the probabilities.
template <int vectors, class T>
void weigh_values(const float* probabilities, const T* v, std::int64_t row, std::int64_t keys,
                  std::int64_t columns, float inverse, T* o) {
  Floats sums[vectors] = {};
  for (std::int64_t j = 0; j < keys; ++j, v += row)
#pragma GCC unroll 4
    for (int c = 0; c < vectors; ++c)
      sums[c] = fma(broadcast(probabilities[j]), load_columns(v + c * lanes, columns - c * lanes), sums[c]);
  for (int c = 0; c < vectors; ++c) store_columns(o + c * lanes, sums[c] * inverse, columns - c * lanes);
}

template <class T>
void attend_once(const T* q, const T* k, const T* v, std::int64_t row, std::int64_t keys, std::int64_t size,
                 float scale, const SingleWorkspace& work, T* o) {
  for (std::int64_t c = 0; c < size; c += lanes) store(work.query + c, load_columns(q + c, size - c));
  for (std::int64_t j = 0; j < keys; ++j) {
    Floats products{};
    for (std::int64_t c = 0; c < size; c += lanes)
      products = fma(load(work.query + c), load_columns(k + j * row + c, size - c), products);
    work.scores[j] = scale * sum(products);
  }
  const std::int64_t padded = round_up(keys, lanes);
  std::fill(work.scores + keys, work.scores + padded, -std::numeric_limits<float>::infinity());
  Floats top = load(work.scores), totals{};
  for (std::int64_t j = lanes; j < padded; j += lanes) top = max(load(work.scores + j), top);
  const float largest_score = largest(top);
  for (std::int64_t j = 0; j < padded; j += lanes) {
    const Floats p = exp2_of_score(load(work.scores + j) - largest_score);
    totals += p;
    store(work.scores + j, p);
  }
  const float inverse = 1 / sum(totals);
  std::int64_t c = 0;
  for (; c + 4 * lanes <= size; c += 4 * lanes)
    weigh_values<4>(work.scores, v + c, row, keys, 4 * lanes, inverse, o + c);
  for (; c < size; c += lanes) weigh_values<1>(work.scores, v + c, row, keys, size - c, inverse, o + c);
}

template <class T>
void single_query(const AttentionShape& shape, const Sources<T>& from, std::int64_t keys, T* o,
                  std::byte* workspace, std::int64_t capacity) {
  const std::int64_t group = shape.heads / shape.kv_heads, size = shape.head_size;
  const std::uint64_t thread_bytes = SingleWorkspace(nullptr, size, capacity).bytes;
  parallel_tasks(shape.batch * shape.heads, [&](std::int64_t task, int thread) {
    const std::int64_t sample = task / shape.heads, head = task % shape.heads;
    const std::int64_t kv = sample * from.kv_sample + head / group * size;
    const SingleWorkspace work(workspace + thread_bytes * static_cast<std::uint64_t>(thread), size, capacity);
    attend_once(from.q + sample * from.q_sample + head * size, from.k + kv, from.v + kv, from.kv_row, keys,
                size, shape.scale() * log2_e, work, o + task * size);
  });
}

template <class T>
void cached_attention_of(AttentionShape shape, const KernelArgs& args) {
  const TensorView &qkv = args.inputs[0], &cache = args.inputs[1];
  const std::int64_t before = args.scalars->kv_length, queries = qkv.rows() / shape.batch;
  const std::int64_t capacity = cache.rows() / shape.batch, heads_columns = shape.kv_heads * shape.head_size;
  check(before + queries <= capacity, "the cache has room for the new positions");
  for (std::int64_t row = 0; row < qkv.rows(); ++row) {
    const T* from = qkv.as<const T>() + row * qkv.columns();
    T* to = cache.as<T>() + (row / queries * capacity + before + row % queries) * cache.columns();
    std::copy_n(from + shape.k_column, heads_columns, to);
    std::copy_n(from + shape.v_column, heads_columns, to + heads_columns);
  }
  shape.causal = true;
  shape.dropout = 0;
  const Lengths lengths{queries, before + queries};
  const Sources<T> sources{qkv.as<const T>() + shape.q_column,
                           cache.as<const T>(),
                           cache.as<const T>() + heads_columns,
                           queries * qkv.columns(),
                           qkv.columns(),
                           capacity * cache.columns(),
                           cache.columns()};
  if (queries == 1)
    return single_query(shape, sources, lengths.keys, args.outputs[0].as<T>(), args.workspace, capacity);
  forward(shape, sources, lengths, Mask(shape, queries, lengths.keys, {}, {}, before),
          ProbabilityDropout(shape, queries, lengths.keys, args), args.outputs[0].as<T>(),
          static_cast<float*>(nullptr), args.workspace, capacity);
}

}  // namespace

void cached_attention(const Op& op, const KernelArgs& args) {
  const AttentionShape& shape = static_cast<const CachedAttention&>(op).shape();
  if (args.inputs[0].dtype() == DType::bf16)
    cached_attention_of<bf16>(shape, args);
  else
    cached_attention_of<float>(shape, args);
}

std::uint64_t cached_attention_workspace(const Op& op, Types inputs, Types, int threads) {
  const AttentionShape& shape = static_cast<const CachedAttention&>(op).shape();
  const std::int64_t capacity = inputs[1].rows() / shape.batch;
  if (inputs[0].rows() == shape.batch)
    return SingleWorkspace(nullptr, shape.head_size, capacity).bytes * static_cast<std::uint64_t>(threads);
  return attention_forward::forward_bytes(inputs[0].dtype, shape.head_size, capacity, threads);
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
