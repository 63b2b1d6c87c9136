#include "model/families/decoder_lm.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "model/families/tables.hpp"
#include "model/layers/layers.hpp"
#include "model/ops/cross_entropy.hpp"
#include "model/ops/embedding.hpp"

namespace muster {
namespace {

ValueId head_table(Builder& b, const ModelConfig& config) {
  return config.tied ? token_table(b, config) : vocabulary_table(b, config, "head.weight");
}

// Everything between the tokens and the head: the normalised rows [B T, C].
ValueId trunk(Builder& b, const ModelConfig& config, bool gpt, Sequences sequences,
              std::int64_t cache_length) {
  const NormKind norm = gpt ? NormKind::layer : NormKind::rms;
  const AttentionOptions attention{.heads = static_cast<int>(config.heads),
                                   .kv_heads = static_cast<int>(config.kv_heads),
                                   .causal = true,
                                   .dropout = config.dropout,
                                   .qkv_bias = gpt || config.qkv_bias,
                                   .bias = gpt,
                                   .rope_base = gpt ? 0 : config.rope_base,
                                   .init_scale = residual_init(config.layers)};
  const FeedForwardOptions feed_forward{.kind = gpt ? FeedForward::gelu : FeedForward::swiglu,
                                        .hidden = config.feed_forward,
                                        .bias = gpt,
                                        .init_scale = residual_init(config.layers)};
  const std::int64_t rows = sequences.batch * sequences.length;
  const ValueId tokens = b.input("tokens", {{rows}, DType::i32});
  sequences.positions = b.input("positions", {{rows}, DType::i32});

  std::vector<ValueId> lookups = {tokens, token_table(b, config)};
  if (gpt) {
    lookups.push_back(sequences.positions);
    lookups.push_back(b.parameter("embedding.position.weight", {config.context, config.width}, {}));
  }
  Residual residual{b.apply_one(std::make_shared<Embedding>(DType::f32), lookups, "embedding"), {}};
  if (gpt)
    residual.stream = dropout(b, residual.stream, config.dropout, sequences.length, "embedding.dropout");

  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const Builder::Scope block(b, "block." + std::to_string(layer), static_cast<std::int32_t>(layer));
    if (cache_length > 0)
      sequences.cache = b.state(
          "cache", {{sequences.batch, cache_length, 2 * config.kv_heads * (config.width / config.heads)},
                    b.compute_type()});
    {
      const Builder::Scope scope(b, "attention");
      const ValueId x = residual_norm(b, residual, norm, config.norm_epsilon, "norm");
      b.mark_border(residual.stream);
      residual.branch = self_attention(b, x, attention, sequences);
    }
    {
      const Builder::Scope scope(b, "feed_forward");
      const ValueId x = residual_norm(b, residual, norm, config.norm_epsilon, "norm");
      residual.branch =
          dropout(b, muster::feed_forward(b, x, feed_forward), config.dropout, sequences.length, "dropout");
    }
  }
  return residual_norm(b, residual, norm, config.norm_epsilon, "norm");
}

class DecoderLm final : public Model {
 public:
  DecoderLm(const ModelConfig& config, bool gpt) : config_(config), gpt_(gpt) {}

 private:
  ValueId append_loss(Builder& b, const MicroBatchShape& shape) const override {
    Sequences sequences{shape.samples, shape.length, {}, {}, {}};
    if (shape.document_starts > 0)
      sequences.document_starts = b.input("document_starts", {{shape.document_starts}, DType::i32});
    const ValueId x = trunk(b, config_, gpt_, sequences, 0);
    const ValueId targets = b.input("targets", {{shape.tokens()}, DType::i32});
    return b.apply_one(std::make_shared<LinearCrossEntropy>(config_.vocabulary, b.training()),
                       {x, head_table(b, config_), targets}, "loss");
  }

  ValueId append_logits(Builder& b, const MicroBatchShape& shape, std::int64_t cache_length) const override {
    const ValueId x = trunk(b, config_, gpt_, {shape.samples, shape.length, {}, {}, {}}, cache_length);
    const ValueId last = b.input("last", {{shape.samples}, DType::i32});
    const ValueId rows = b.apply_one(std::make_shared<Embedding>(b.compute_type()), {last, x}, "last_rows");
    return b.apply_one(std::make_shared<Linear>(Activation::none, false), {rows, head_table(b, config_)},
                       "logits");
  }

  const ModelConfig config_;
  const bool gpt_;
};

void check_heads(const ModelConfig& model) {
  check_heads_divide_width(model);
  if (model.heads % model.kv_heads != 0)
    throw UserError("model.kv_heads = {} does not divide model.heads = {}; choose a divisor", model.kv_heads,
                    model.heads);
}

void check_llama(const ModelConfig& model) {
  check_heads(model);
  if (model.width / model.heads % 2 != 0)
    throw UserError(
        "model.heads = {} makes heads of {} channels, and rotary positions need an even number; "
        "change model.width or model.heads",
        model.heads, model.width / model.heads);
}

constexpr std::string_view keys[] = {"family",       "layers",     "width",       "heads",   "kv_heads",
                                     "feed_forward", "vocabulary", "context",     "dropout", "tied",
                                     "qkv_bias",     "rope_base",  "norm_epsilon"};

void resolve_gpt(ModelConfig& model) {
  if (model.kv_heads == 0) model.kv_heads = model.heads;
  if (model.feed_forward == 0) model.feed_forward = 4 * model.width;
  model.qkv_bias = true;
}

void resolve_llama(ModelConfig& model) {
  if (model.kv_heads == 0) model.kv_heads = model.heads;
  if (model.feed_forward == 0) model.feed_forward = (8 * model.width / 3 + 127) / 128 * 128;
}

}  // namespace

FamilyEntry gpt_family() {
  return {.family = Family::gpt,
          .keys = keys,
          .resolve = resolve_gpt,
          .check = check_heads,
          .make = [](const ModelConfig& config) -> std::unique_ptr<Model> {
            return std::make_unique<DecoderLm>(config, true);
          },
          .writes_text = true};
}

FamilyEntry llama_family() {
  return {.family = Family::llama,
          .keys = keys,
          .resolve = resolve_llama,
          .check = check_llama,
          .make = [](const ModelConfig& config) -> std::unique_ptr<Model> {
            return std::make_unique<DecoderLm>(config, false);
          },
          .writes_text = true};
}

}  // namespace muster
