#include "model/layers/layers.hpp"

#include <cmath>
#include <string>

#include "model/ops/activation.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/dropout.hpp"
#include "model/ops/rope.hpp"

namespace muster {
ValueId linear(Builder& b, ValueId x, std::int64_t outputs, LinearOptions options, std::string_view name) {
  const Builder::Scope scope(b, name);
  const ValueId w =
      b.parameter("weight", {outputs, b.type(x).columns()}, {Init::Kind::normal, options.init_scale});
  const ValueId bias = options.bias ? b.parameter("bias", {outputs}, {Init::Kind::constant, 0}) : ValueId();
  return b.apply_one(std::make_shared<Linear>(options.activation, b.training()), {x, w, bias}, "product");
}

ValueId residual_norm(Builder& b, Residual& residual, NormKind kind, double epsilon, std::string_view name,
                      std::optional<DType> output) {
  const Builder::Scope scope(b, name);
  const std::int64_t width = b.type(residual.stream).columns();
  const ValueId weight = b.parameter("weight", {width}, {Init::Kind::constant, 1});
  const ValueId bias =
      kind == NormKind::layer ? b.parameter("bias", {width}, {Init::Kind::constant, 0}) : ValueId();
  const auto outputs = b.apply(
      std::make_shared<ResidualNorm>(kind, static_cast<float>(epsilon), output.value_or(b.compute_type())),
      {residual.stream, residual.branch, weight, bias}, "norm");
  if (residual.branch) residual = {outputs[2], {}};
  // What a block needs to run again from its border: the stream and the statistics of its first norm.
  b.mark_border(outputs[1]);
  return outputs[0];
}

ValueId dropout(Builder& b, ValueId x, double probability, std::int64_t rows_per_sample,
                std::string_view name) {
  if (probability == 0 || !b.training()) return x;
  return b.apply_one(std::make_shared<Dropout>(static_cast<float>(probability), rows_per_sample), {x}, name);
}

float residual_init(std::int64_t layers) { return 0.02f / std::sqrt(2.0f * static_cast<float>(layers)); }

ValueId self_attention(Builder& b, ValueId x, const AttentionOptions& options, const Sequences& sequences) {
  const std::int64_t width = b.type(x).columns();
  const int heads = options.heads, kv_heads = options.kv_heads;
  const int head_size = static_cast<int>(width / heads);
  const std::int64_t packed = static_cast<std::int64_t>(heads + 2 * kv_heads) * head_size;
  ValueId qkv = linear(b, x, packed, {.bias = options.qkv_bias}, "qkv");
  if (options.rope_base > 0)
    qkv = b.apply_one(std::make_shared<Rope>(heads + kv_heads, head_size, options.rope_base, false),
                      {qkv, sequences.positions}, "rope");
  const float drop = b.training() ? static_cast<float>(options.dropout) : 0.0f;
  const auto shape =
      AttentionShape::packed(sequences.batch, heads, kv_heads, head_size, options.causal, drop);
  const ValueId attended =
      sequences.cache
          ? b.apply_one(std::make_shared<CachedAttention>(shape), {qkv, sequences.cache}, "attend")
          : b.apply_one(std::make_shared<Attention>(shape),
                        {qkv, qkv, sequences.document_starts, sequences.document_starts}, "attend");
  const ValueId y =
      linear(b, attended, width, {.bias = options.bias, .init_scale = options.init_scale}, "projection");
  return dropout(b, y, options.dropout, sequences.length, "dropout");
}

ValueId feed_forward(Builder& b, ValueId x, const FeedForwardOptions& options) {
  const std::int64_t width = b.type(x).columns();
  const LinearOptions down{.bias = options.bias, .init_scale = options.init_scale};
  if (options.kind == FeedForward::gelu) {
    const ValueId hidden =
        linear(b, x, options.hidden, {.bias = options.bias, .activation = Activation::gelu}, "up");
    return linear(b, hidden, width, down, "down");
  }
  const ValueId gate_up = linear(b, x, 2 * options.hidden, {.bias = options.bias}, "gate_up");
  const ValueId hidden = b.apply_one(std::make_shared<SwiGlu>(), {gate_up}, "swiglu");
  return linear(b, hidden, width, down, "down");
}

}  // namespace muster
