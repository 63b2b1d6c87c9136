#include "trainer/run/run_data.hpp"

#include "core/error.hpp"
#include "core/hash.hpp"
#include "data/prefetch.hpp"
#include "model/families/family.hpp"
#include "trainer/evaluate/evaluation.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {
namespace {

std::string content_of(std::uint64_t tokenizer_hash, const SplitInfo& split) {
  std::vector<std::uint64_t> hashes = {tokenizer_hash};
  for (const ShardInfo& shard : split.shards) hashes.push_back(shard.hash);
  return hex(hash_bytes(std::as_bytes(std::span(hashes))));
}

}  // namespace

RunData::RunData(const Config& config) {
  if (config.data.sources().empty())
    throw UserError(
        "data.path is missing: name the folder that `muster prepare` wrote, as --data.path=FOLDER");
  for (const DataSource& source : config.data.sources())
    datasets_.push_back(std::make_unique<Dataset>(source.path, config.data.verify));
}

Config for_data(Config config, const RunData& data) {
  if (config.model.vocabulary == 0)
    config.model.vocabulary = data.info().vocabulary + family_of(config.model).own_tokens;
  return config;
}

std::vector<SourceIdentity> RunData::identities(const Config& config) const {
  std::vector<SourceIdentity> all;
  for (std::size_t i = 0; i < datasets_.size(); ++i) {
    const DatasetInfo& dataset = datasets_[i]->info();
    const DataSource source = config.data.sources()[i];
    all.push_back({source.path, source.weight, content_of(dataset.tokenizer_hash, dataset.train)});
  }
  return all;
}

std::string RunData::validation_content() const {
  return content_of(info().tokenizer_hash, info().validation);
}

bool RunData::has_validation(const Config& config) const {
  const SplitInfo& split = info().validation;
  for (const ShardInfo& shard : split.shards)
    if (shard.tokens > static_cast<std::uint64_t>(config.train.sequence)) return true;
  return false;
}

void RunData::refuse_single_tokens(const Config& config, Split split) const {
  if (!config.data.documents) return;
  const std::size_t read = split == Split::validation ? 1 : datasets_.size();
  for (std::size_t k = 0; k < read; ++k) {
    const SplitInfo& info = datasets_[k]->info().split(split);
    if (info.tokens() == 0 || info.documents() < info.tokens()) continue;
    throw UserError(
        "each document of the {} split of {} is a single token, so that there is nothing to learn with "
        "data.documents = true: prepare other text, or set data.documents = false",
        name_of(split), datasets_[k]->folder());
  }
}

std::vector<Loader::Source> RunData::sources(const Config& config) const {
  std::vector<Loader::Source> sources;
  for (std::size_t i = 0; i < datasets_.size(); ++i)
    sources.push_back({datasets_[i].get(), config.data.sources()[i].weight});
  return sources;
}

Loader RunData::training(const Config& config, MemoryAccount& account) const {
  return Loader(sources(config), loader_options(config, Split::train), account);
}

Loader RunData::validation(const Config& config, MemoryAccount& account) const {
  return Loader({{datasets_.front().get(), 1}}, loader_options(config, Split::validation), account);
}

std::uint64_t RunData::memory(const Config& config, Split split) const {
  std::vector<const DatasetInfo*> sources;
  for (const auto& dataset : datasets_) sources.push_back(&dataset->info());
  if (split == Split::validation) sources.resize(1);
  const Loader::Options options = loader_options(config, split);
  return Loader::memory(sources, options) + Prefetch::memory(micro_batch_fields(config), prefetch_depth) +
         (split == Split::validation ? Evaluation::memory() : 0);
}

std::uint64_t RunData::memory(const Config& config) const {
  const bool evaluates = config.eval.every > 0 && has_validation(config);
  return memory(config, Split::train) + (evaluates ? memory(config, Split::validation) : 0);
}

}  // namespace muster
