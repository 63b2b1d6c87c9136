#include "model/ops/attention.hpp"

#include <cmath>

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {
namespace {

// Pairs of a query and a key that may meet; segments are unknown when a plan is made: a sample counts as one.
double pairs(const AttentionShape& shape, double queries, double keys) {
  if (!shape.causal) return queries * keys;
  return queries <= keys ? queries * queries / 2 : keys * keys / 2 + (queries - keys) * keys;
}

// The two sides of the segments, from input `first` on.
void expect_segments(const Op& op, std::span<const TensorType> inputs, std::size_t first) {
  const TensorType &queries = inputs[first], &keys = inputs[first + 1];
  expect(op, queries.shape == keys.shape, "as many query_starts as key_starts");
  if (queries.shape.empty()) return;
  expect(op, queries.dtype == DType::i32 && keys.dtype == DType::i32, "query_starts and key_starts in i32");
  expect(op, queries.elements() >= 2, "query_starts and key_starts of at least one segment");
}

double product_flops(const AttentionShape& s, std::span<const TensorType> sources) {
  const double batch = static_cast<double>(s.batch);
  const double queries = static_cast<double>(sources[0].rows()) / batch;
  const double keys = static_cast<double>(sources[1].rows()) / batch;
  return 2.0 * batch * s.heads * s.head_size * pairs(s, queries, keys);
}

}  // namespace

float AttentionShape::scale() const {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_size)));
}

AttentionShape AttentionShape::packed(std::int64_t batch, int heads, int kv_heads, int head_size, bool causal,
                                      float dropout) {
  const std::int64_t keys = static_cast<std::int64_t>(heads) * head_size;
  return {batch,     heads,  kv_heads,
          head_size, causal, dropout,
          0,         keys,   keys + static_cast<std::int64_t>(kv_heads) * head_size};
}

std::vector<TensorType> Attention::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 4, "takes q_source, kv_source, query_starts, key_starts");
  expect(*this, inputs[0].dtype == inputs[1].dtype, "sources of one type");
  expect(*this, inputs[0].rows() % shape_.batch == 0 && inputs[1].rows() % shape_.batch == 0, "B sequences");
  expect(*this, shape_.kv_heads > 0 && shape_.heads % shape_.kv_heads == 0, "whole groups of query heads");
  expect(*this, shape_.q_column + shape_.heads * shape_.head_size <= inputs[0].columns(),
         "queries in the rows");
  expect(*this, shape_.v_column + shape_.kv_heads * shape_.head_size <= inputs[1].columns(),
         "values in the rows");
  expect_segments(*this, inputs, 2);
  return {{{inputs[0].rows(), shape_.heads * shape_.head_size}, inputs[0].dtype},
          {{shape_.batch, shape_.heads, inputs[0].rows() / shape_.batch}, DType::f32}};
}

Cost Attention::cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const {
  Cost cost = Op::cost(inputs, outputs);
  cost.matrix_flops = 2 * product_flops(shape_, inputs);
  return cost;
}

void Attention::differentiate(Differentiator& gradients, const Node& node) const {
  const ValueId q = node.inputs[0], kv = node.inputs[1];
  const bool same = q == kv;
  const std::vector<ValueId> d =
      gradients.apply(std::make_shared<AttentionGradient>(shape_, same),
                      {gradients.gradient_of(node.outputs[0]), q, kv, node.outputs[0], node.outputs[1],
                       node.inputs[2], node.inputs[3]},
                      "gradient");
  gradients.contribute(q, d[0]);
  if (!same) gradients.contribute(kv, d[1]);
}

std::vector<TensorType> AttentionGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 7, "takes do, q_source, kv_source, o, lse, query_starts, key_starts");
  expect_segments(*this, inputs, 5);
  if (same_source_) return {inputs[1]};
  return {inputs[1], inputs[2]};
}

Cost AttentionGradient::cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const {
  Cost cost = Op::cost(inputs, outputs);
  // dv, dp, dq, dk: four products. That the scores are computed again counts in neither sol nor mfu.
  cost.matrix_flops = 4 * product_flops(shape_, inputs.subspan(1));
  return cost;
}

std::vector<TensorType> CachedAttention::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[0].dtype == inputs[1].dtype,
         "takes qkv and a cache of one type");
  expect(*this, inputs[1].columns() == 2 * shape_.kv_heads * shape_.head_size,
         "keys and values in a row of the cache");
  return {{{inputs[0].rows(), shape_.heads * shape_.head_size}, inputs[0].dtype}};
}

}  // namespace muster
