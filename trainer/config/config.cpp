#include "trainer/config/config.hpp"

#include <cstdint>
#include <fmt/format.h>
#include <limits>

#include "core/error.hpp"

namespace muster {

std::vector<DataSource> DataConfig::sources() const {
  if (path.empty()) return source;
  return {{.path = path, .weight = 1}};
}

void resolve(Config& config) {
  ModelConfig& model = config.model;
  TrainConfig& train = config.train;
  if (model.kv_heads == 0) model.kv_heads = model.heads;
  if (model.feed_forward == 0) {
    model.feed_forward =
        model.family == Family::gpt ? 4 * model.width : (8 * model.width / 3 + 127) / 128 * 128;
  }
  if (model.context == 0) model.context = train.sequence;
  if (model.family == Family::gpt) model.qkv_bias = true;
  if (train.micro_batch == 0) train.micro_batch = train.batch / train.shards;
}

void check_relations(const Config& config) {
  const ModelConfig& model = config.model;
  const TrainConfig& train = config.train;
  if (model.width % model.heads != 0)
    throw UserError("model.heads = {} does not divide model.width = {}; choose a divisor", model.heads,
                    model.width);
  if (model.heads % model.kv_heads != 0)
    throw UserError("model.kv_heads = {} does not divide model.heads = {}; choose a divisor", model.kv_heads,
                    model.heads);
  if (model.family == Family::llama && model.width / model.heads % 2 != 0)
    throw UserError(
        "model.heads = {} makes heads of {} channels, and rotary positions need an even number; "
        "change model.width or model.heads",
        model.heads, model.width / model.heads);
  if (train.sequence > model.context)
    throw UserError(
        "train.sequence = {} exceeds model.context = {}; raise model.context or shorten the sequences",
        train.sequence, model.context);
  if (train.batch % train.shards != 0)
    throw UserError(
        "train.shards = {} does not divide train.batch = {}; make the batch a multiple of the shards",
        train.shards, train.batch);
  if (train.batch / train.shards % train.micro_batch != 0)
    throw UserError(
        "train.micro_batch = {} does not divide train.batch / train.shards = {}; choose a divisor",
        train.micro_batch, train.batch / train.shards);
  if (train.micro_batch * train.sequence > std::numeric_limits<std::int32_t>::max())
    throw UserError(
        "train.micro_batch = {} sequences of train.sequence = {} are more than 2^31 - 1 tokens at once; "
        "lower "
        "train.micro_batch",
        train.micro_batch, train.sequence);
  if (!config.data.path.empty() && !config.data.source.empty())
    throw UserError("data.path and data.source are both given; keep one of them");
}

}  // namespace muster
