// Scaled dot-product attention without a T x T matrix in memory (Dao et al. 2022, "FlashAttention").
//
//   P[i, j] = exp(q_i . k_j / sqrt(D) - lse_i) over the keys j that query i may see
//   lse_i   = log sum_j exp(q_i . k_j / sqrt(D))
//   o_i     = sum_j drop(P[i, j]) v_j
//
//   backward: delta_i = do_i . o_i,  dP = drop(do_i . v_j),  dS = P (dP - delta_i)
//   dq_i = sum_j dS k_j / sqrt(D),  dk_j = sum_i dS q_i / sqrt(D),  dv_j = sum_i drop(P[i, j]) do_i
//
// Heads: query head h reads key and value head h / (H / H_kv) (grouped queries, Ainslie et al. 2023).
//
// Segments: `query_starts` and `key_starts`, i32 [S + 1] each, are ascending offsets into the rows of the queries
// and of the keys. Segment s has the queries [query_starts[s], query_starts[s + 1]) and the keys of the same
// places in key_starts; its queries see its keys and no others. Either side of a segment may be empty: queries
// that see no key have o = 0, lse = -inf and no gradient. Rows before the first start and behind the last are in
// no segment, so that unused entries repeat the last. Both sides of a segment lie in the same sample: sequences
// that are packed without regard to samples have B = 1. With neither input given, each sample is a segment.
// Self-attention takes the same value twice. Rows beside a segment may be multiplied by 0: they must be finite.
//
// Causal: query i of a segment sees its keys 0 to i, counted from the segment's start on either side. Where it
// has fewer keys than queries, the queries behind them see all; keys behind its last query are seen by none.
//
// Dropout keeps P[i, j] with probability 1 - p and divides by it; i and j counted within the sample, the Philox
// element is (h T_q + i) T_k + j.
//
// Types f32 or bf16; scores, softmax and sums in f32; lse f32 (natural logarithm).
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Where heads lie in rows: queries in the columns [q, q + H D) of q_source; keys and values in [k, k + H_kv
// D) and [v, v + H_kv D) of kv_source. Self-attention on packed rows (q | k | v) has q_source = kv_source.
struct AttentionShape {
  std::int64_t batch = 1;
  int heads = 1;
  int kv_heads = 1;
  int head_size = 64;
  bool causal = true;
  float dropout = 0;
  std::int64_t q_column = 0;
  std::int64_t k_column = 0;
  std::int64_t v_column = 0;

  float scale() const;
  static AttentionShape packed(std::int64_t batch, int heads, int kv_heads, int head_size, bool causal,
                               float dropout);
};

// Inputs: q_source [B T_q, W_q], kv_source [B T_k, W_kv] (may be the same value), query_starts and key_starts
// (both or neither). Outputs: o [B T_q, H D], lse f32 [B, H, T_q].
//
// Decoding over a memory of keys is this op, too: the memory is kv_source, of B samples with room for T_k keys
// each, and segments tell how many of them there are, one more segment without queries for the rest of each
// room; rows that decode together, as the beams of a search, are the queries of one segment.
class Attention final : public Op {
 public:
  explicit Attention(AttentionShape shape) : shape_(shape) {}
  const AttentionShape& shape() const { return shape_; }
  std::string_view name() const override { return "attention"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;

 private:
  AttentionShape shape_;
};

// Inputs: do, q_source, kv_source, o, lse, query_starts and key_starts (both or neither).
// Outputs: d q_source, and unless `same_source` d kv_source; columns that hold no head are set to zero.
class AttentionGradient final : public Op {
 public:
  AttentionGradient(AttentionShape shape, bool same_source) : shape_(shape), same_source_(same_source) {}
  const AttentionShape& shape() const { return shape_; }
  bool same_source() const { return same_source_; }
  std::string_view name() const override { return "attention_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const override;

 private:
  AttentionShape shape_;
  bool same_source_;
};

// Generation. Inputs: qkv [B T_q, W] packed, cache state [B, T_max, 2 H_kv D] (keys, then values, in a row).
// Appends the keys and values of qkv to the cache behind StepScalars::kv_length positions, then attends:
// query i sees the keys j <= kv_length + i. Output: o [B T_q, H D].
class CachedAttention final : public Op {
 public:
  explicit CachedAttention(AttentionShape shape) : shape_(shape) {}
  const AttentionShape& shape() const { return shape_; }
  std::string_view name() const override { return "cached_attention"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;

 private:
  AttentionShape shape_;
};

}  // namespace muster
