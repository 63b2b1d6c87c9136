#include "trainer/config/config.hpp"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>
#include <limits>

#include "core/error.hpp"
#include "model/families/family.hpp"

namespace muster {
namespace {

constexpr std::int64_t most_tokens_at_once = std::numeric_limits<std::int32_t>::max();

// A heavier rank makes the others wait; a smaller micro-batch makes all of them slower.
constexpr double most_of_an_even_share = 1.1;

std::int64_t micro_batch_for(const TrainConfig& train, std::int64_t ranks) {
  const std::int64_t largest =
      std::max<std::int64_t>(1, std::min(train.batch / train.shards, most_tokens_at_once / train.sequence));
  std::int64_t best = 1;
  const auto consider = [&](std::int64_t size) {
    const std::int64_t heaviest = (train.batch / size + ranks - 1) / ranks * size;
    if (size <= largest && train.batch / size >= ranks &&
        static_cast<double>(heaviest * ranks) <= most_of_an_even_share * static_cast<double>(train.batch))
      best = std::max(best, size);
  };
  for (std::int64_t divisor = 1; divisor * divisor <= train.batch; ++divisor) {
    if (train.batch % divisor != 0) continue;
    consider(divisor);
    consider(train.batch / divisor);
  }
  return best;
}

}  // namespace

std::vector<DataSource> DataConfig::sources() const {
  if (path.empty()) return source;
  return {{.path = path, .weight = 1}};
}

void resolve(Config& config) {
  TrainConfig& train = config.train;
  family_of(config.model).resolve(config.model);
  if (config.model.context == 0) config.model.context = train.sequence;
  if (train.micro_batch == 0 && train.reduction == Reduction::invariant)
    train.micro_batch = train.batch / train.shards;
}

Config for_ranks(Config config, int ranks) {
  if (config.train.micro_batch == 0) config.train.micro_batch = micro_batch_for(config.train, ranks);
  return config;
}

void check_relations(const Config& config) {
  const ModelConfig& model = config.model;
  const TrainConfig& train = config.train;
  family_of(model).check(model);
  if (train.sequence > model.context)
    throw UserError(
        "train.sequence = {} exceeds model.context = {}; raise model.context or shorten the sequences",
        train.sequence, model.context);
  if (train.reduction == Reduction::invariant) {
    if (train.batch % train.shards != 0)
      throw UserError(
          "train.shards = {} does not divide train.batch = {}; make the batch a multiple of the shards",
          train.shards, train.batch);
    if (train.batch / train.shards % train.micro_batch != 0)
      throw UserError(
          "train.micro_batch = {} does not divide train.batch / train.shards = {}; choose a divisor",
          train.micro_batch, train.batch / train.shards);
  } else if (train.micro_batch > 0 && train.batch % train.micro_batch != 0) {
    throw UserError("train.micro_batch = {} does not divide train.batch = {}; choose a divisor",
                    train.micro_batch, train.batch);
  }
  if (train.micro_batch * train.sequence > most_tokens_at_once)
    throw UserError(
        "train.micro_batch = {} sequences of train.sequence = {} are more than 2^31 - 1 tokens at once; "
        "lower "
        "train.micro_batch",
        train.micro_batch, train.sequence);
  if (config.optimizer.nesterov && config.optimizer.momentum == 0)
    throw UserError("optimizer.nesterov wants optimizer.momentum above 0; raise it, or leave nesterov out");
  if (!config.data.path.empty() && !config.data.source.empty())
    throw UserError("data.path and data.source are both given; keep one of them");
}

}  // namespace muster
