#include "model/families/bert.hpp"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/philox.hpp"
#include "model/families/tables.hpp"
#include "model/layers/layers.hpp"
#include "model/ops/activation.hpp"
#include "model/ops/cast.hpp"
#include "model/ops/cross_entropy.hpp"
#include "model/ops/embedding.hpp"

namespace muster {
namespace {

constexpr float replaced_by_mask = 0.8f, replaced_by_any = 0.1f;

// The stream behind a norm: f32 for what is added to it, and in the compute type for products.
struct Normed {
  ValueId stream, x;
};

ValueId cast(Builder& b, ValueId value, DType type, std::string_view name) {
  return b.type(value).dtype == type ? value : b.apply_one(std::make_shared<Cast>(type), {value}, name);
}

// dropout(norm(stream + branch)), in f32 like every residual stream (ops/norm.hpp).
Normed add_and_norm(Builder& b, ValueId stream, ValueId branch, double epsilon, double drop,
                    std::int64_t length) {
  Residual sum{stream, cast(b, branch, DType::f32, "norm.branch")};
  const ValueId y = residual_norm(b, sum, NormKind::layer, epsilon, "norm", DType::f32);
  const Builder::Scope scope(b, "norm");
  const ValueId next = dropout(b, y, drop, length, "dropout");
  b.mark_border(next);
  return {next, cast(b, next, b.compute_type(), "x")};
}

ValueId dense_gelu(Builder& b, ValueId x, std::int64_t outputs, std::string_view name) {
  const ValueId z = linear(b, x, outputs, {.bias = true}, name);
  return b.apply_one(std::make_shared<GeluErf>(), {z}, "gelu");
}

class Bert final : public Model {
 public:
  explicit Bert(const ModelConfig& config) : config_(config) {}

  bool derives(std::string_view field) const override { return field == "token_types"; }

  void derive(Batch& batch, const SampleSlots& slots) const override {
    const std::span<std::int32_t> tokens = batch.i32("tokens"), targets = batch.i32("targets");
    std::ranges::fill(batch.i32("token_types"), 0);
    const auto mask_token = static_cast<std::int32_t>(config_.vocabulary - 1);
    const std::size_t length = tokens.size() / static_cast<std::size_t>(slots.count);
    batch.valid_targets = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto slot = static_cast<std::uint64_t>(slots.first) + i / length;
      const bool padding = static_cast<std::int64_t>(i / length) >= batch.samples;
      const auto drawn = philox({static_cast<std::uint32_t>(i % length), static_cast<std::uint32_t>(slot),
                                 static_cast<std::uint32_t>(slot >> 32), fnv1a("mask")},
                                slots.seed);
      if (padding || uniform(drawn[0]) >= static_cast<float>(config_.mask)) {
        targets[i] = ignored_target;
        continue;
      }
      targets[i] = tokens[i];
      ++batch.valid_targets;
      const float replaced = uniform(drawn[1]);
      if (replaced < replaced_by_mask)
        tokens[i] = mask_token;
      else if (replaced < replaced_by_mask + replaced_by_any)
        tokens[i] = static_cast<std::int32_t>(drawn[2] % static_cast<std::uint32_t>(mask_token));
    }
  }

 private:
  ValueId append_loss(Builder& b, const MicroBatchShape& shape) const override {
    const ValueId tokens = b.input("tokens", {{shape.tokens()}, DType::i32});
    Sequences sequences{shape.samples, shape.length, {}, {}, {}};
    sequences.positions = b.input("positions", {{shape.tokens()}, DType::i32});
    if (shape.document_starts > 0)
      sequences.document_starts = b.input("document_starts", {{shape.document_starts}, DType::i32});
    const ValueId table = token_table(b, config_);
    const ValueId h = encode(b, tokens, table, sequences);
    const ValueId targets = b.input("targets", {{shape.tokens()}, DType::i32});
    const Builder::Scope scope(b, "head");
    Residual transformed{dense_gelu(b, h, config_.width, "dense"), {}};
    const ValueId y = residual_norm(b, transformed, NormKind::layer, config_.norm_epsilon, "norm");
    return b.apply_one(std::make_shared<LinearCrossEntropy>(config_.vocabulary, b.training()),
                       {y, table, targets}, "loss");
  }

  // The rows [B T, C] behind the last block.
  ValueId encode(Builder& b, ValueId tokens, ValueId table, const Sequences& sequences) const {
    Normed h = embed(b, tokens, table, sequences);
    const AttentionOptions attention{.heads = static_cast<int>(config_.heads),
                                     .kv_heads = static_cast<int>(config_.heads),
                                     .causal = false,
                                     .dropout = config_.dropout,
                                     .qkv_bias = true,
                                     .bias = true};
    for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
      const Builder::Scope block(b, "block." + std::to_string(layer), static_cast<std::int32_t>(layer));
      {
        const Builder::Scope scope(b, "attention");
        h = add_and_norm(b, h.stream, self_attention(b, h.x, attention, sequences), config_.norm_epsilon, 0,
                         sequences.length);
      }
      {
        const Builder::Scope scope(b, "feed_forward");
        const ValueId hidden = dense_gelu(b, h.x, config_.feed_forward, "up");
        const ValueId down = linear(b, hidden, config_.width, {.bias = true}, "down");
        h = add_and_norm(b, h.stream, dropout(b, down, config_.dropout, sequences.length, "dropout"),
                         config_.norm_epsilon, 0, sequences.length);
      }
    }
    return h.x;
  }

  Normed embed(Builder& b, ValueId tokens, ValueId table, const Sequences& sequences) const {
    const Builder::Scope scope(b, "embedding");
    const ValueId types = b.input("token_types", b.type(tokens));
    const ValueId sum = b.apply_one(std::make_shared<Embedding>(DType::f32),
                                    {tokens, table, sequences.positions,
                                     b.parameter("position.weight", {config_.context, config_.width}, {})},
                                    "tokens");
    const ValueId of_types =
        b.apply_one(std::make_shared<Embedding>(DType::f32),
                    {types, b.parameter("type.weight", {config_.token_types, config_.width}, {})}, "types");
    return add_and_norm(b, sum, of_types, config_.norm_epsilon, config_.dropout, sequences.length);
  }

  const ModelConfig config_;
};

void check_bert(const ModelConfig& model) {
  check_heads_divide_width(model);
  if (model.mask == 0)
    throw UserError("model.mask = 0 leaves no token to restore; raise it, or leave it out");
  if (model.vocabulary == 1)
    throw UserError("model.vocabulary = 1 leaves no token but that for masks; raise it, or leave it out");
}

void resolve_bert(ModelConfig& model) {
  if (model.feed_forward == 0) model.feed_forward = 4 * model.width;
}

}  // namespace

FamilyEntry bert_family() {
  static constexpr std::string_view keys[] = {"family",       "layers",     "width",      "heads",
                                              "feed_forward", "vocabulary", "context",    "dropout",
                                              "norm_epsilon", "mask",       "token_types"};
  return {.family = Family::bert,
          .keys = keys,
          .resolve = resolve_bert,
          .check = check_bert,
          .make = [](const ModelConfig& config) -> std::unique_ptr<Model> {
            return std::make_unique<Bert>(config);
          },
          .own_tokens = 1};
}

}  // namespace muster
