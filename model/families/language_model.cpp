#include "model/families/language_model.hpp"

#include <string>
#include <utility>

#include "model/graph/builder.hpp"
#include "model/graph/differentiate.hpp"
#include "model/layers/layers.hpp"
#include "model/ops/cross_entropy.hpp"
#include "model/ops/embedding.hpp"

namespace muster {
namespace {

std::int64_t padded_vocabulary(const ModelConfig& config) {
  return (config.vocabulary + vocabulary_multiple - 1) / vocabulary_multiple * vocabulary_multiple;
}

ValueId token_table(Builder& b, const ModelConfig& config) {
  return b.parameter("embedding.token.weight", {padded_vocabulary(config), config.width}, {},
                     config.vocabulary);
}

ValueId head_table(Builder& b, const ModelConfig& config) {
  if (config.tied) return token_table(b, config);
  return b.parameter("head.weight", {padded_vocabulary(config), config.width}, {}, config.vocabulary);
}

// Everything between the tokens and the head: the normalised rows [B T, C].
ValueId trunk(Builder& b, const ModelConfig& config, Sequences sequences, std::int64_t cache_length) {
  const NormKind norm = config.family == Family::gpt ? NormKind::layer : NormKind::rms;
  const std::int64_t rows = sequences.batch * sequences.length;
  const ValueId tokens = b.input("tokens", {{rows}, DType::i32});
  sequences.positions = b.input("positions", {{rows}, DType::i32});

  std::vector<ValueId> lookups = {tokens, token_table(b, config)};
  if (config.family == Family::gpt) {
    lookups.push_back(sequences.positions);
    lookups.push_back(b.parameter("embedding.position.weight", {config.context, config.width}, {}));
  }
  Residual residual{b.apply_one(std::make_shared<Embedding>(DType::f32), lookups, "embedding"), {}};
  if (config.family == Family::gpt)
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
      residual.branch = self_attention(b, x, config, sequences);
    }
    {
      const Builder::Scope scope(b, "feed_forward");
      const ValueId x = residual_norm(b, residual, norm, config.norm_epsilon, "norm");
      residual.branch = dropout(b, feed_forward(b, x, config), config.dropout, sequences.length, "dropout");
    }
  }
  return residual_norm(b, residual, norm, config.norm_epsilon, "norm");
}

// Returns the loss.
ValueId with_loss(Builder& b, const ModelConfig& config, const LanguageModelShape& shape) {
  const std::int64_t rows = shape.batch * shape.sequence;
  Sequences sequences{shape.batch, shape.sequence, {}, {}, {}};
  if (shape.document_starts > 0)
    sequences.document_starts = b.input("document_starts", {{shape.document_starts}, DType::i32});
  const ValueId x = trunk(b, config, sequences, 0);
  const ValueId targets = b.input("targets", {{rows}, DType::i32});
  const ValueId loss = b.apply_one(std::make_shared<LinearCrossEntropy>(config.vocabulary, b.training()),
                                   {x, head_table(b, config), targets}, "loss");
  b.mark_result(loss, "loss");
  return loss;
}

}  // namespace

LanguageModel::LanguageModel(const ModelConfig& config) : config_(config) {
  const auto space = std::make_shared<ParameterSpace>();
  Builder b = Builder::declaring(space, Precision::f32, false);
  with_loss(b, config, {});
  space_ = space;
}

Graph LanguageModel::training(const LanguageModelShape& shape, Precision precision,
                              Recompute recompute) const {
  Builder b(space_, precision, true);
  const ValueId loss = with_loss(b, config_, shape);
  Graph graph = std::move(b).finish();
  differentiate(graph, loss, recompute);
  return graph;
}

Graph LanguageModel::evaluation(const LanguageModelShape& shape, Precision precision) const {
  Builder b(space_, precision, false);
  with_loss(b, config_, shape);
  return std::move(b).finish();
}

Graph LanguageModel::generation(const LanguageModelShape& shape, Precision precision,
                                std::int64_t cache_length) const {
  Builder b(space_, precision, false);
  const ValueId x = trunk(b, config_, {shape.batch, shape.sequence, {}, {}, {}}, cache_length);
  const ValueId last = b.input("last", {{shape.batch}, DType::i32});
  const ValueId rows = b.apply_one(std::make_shared<Embedding>(b.compute_type()), {last, x}, "last_rows");
  const ValueId logits = b.apply_one(std::make_shared<Linear>(Activation::none, false),
                                     {rows, head_table(b, config_)}, "logits");
  b.mark_result(logits, "logits");
  return std::move(b).finish();
}

}  // namespace muster
