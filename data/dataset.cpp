#include "data/dataset.hpp"

#include <array>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"
#include "data/tokenizer.hpp"

namespace muster {
namespace {

using json = nlohmann::ordered_json;

constexpr std::uint64_t automatic_limit = std::uint64_t{1} << 30;  // about a second of hashing
constexpr std::array splits = {Split::train, Split::validation};

std::uint64_t hash_of(const std::string& text) {
  const auto hash = from_hex(text);
  if (!hash) throw std::invalid_argument("'" + text + "' is no hash");
  return *hash;
}

// The library would take any number for a whole one, whether it fits or not.
std::uint64_t count_of(const json& value) {
  if (!value.is_number_unsigned()) throw std::invalid_argument("'" + value.dump() + "' is no count");
  return value.get<std::uint64_t>();
}

json to_json(const SplitInfo& split) {
  json shards = json::array();
  for (const ShardInfo& shard : split.shards)
    shards.push_back({{"file", shard.file},
                      {"tokens", shard.tokens},
                      {"documents", shard.documents},
                      {"bytes", shard.bytes},
                      {"xxh3", hex(shard.hash)}});
  return {{"text_bytes", split.text_bytes}, {"shards", std::move(shards)}};
}

SplitInfo split_from(const json& text) {
  SplitInfo split;
  split.text_bytes = count_of(text.at("text_bytes"));
  for (const json& entry : text.at("shards")) {
    ShardInfo shard{.file = entry.at("file"),
                    .tokens = count_of(entry.at("tokens")),
                    .documents = count_of(entry.at("documents")),
                    .bytes = count_of(entry.at("bytes")),
                    .hash = hash_of(entry.at("xxh3"))};
    if (shard.file.find('/') != std::string::npos)
      throw std::invalid_argument("shard '" + shard.file + "' lies outside the folder");
    split.shards.push_back(std::move(shard));
  }
  return split;
}

std::uint64_t file_bytes(const DatasetInfo& info) {
  std::uint64_t bytes = 0;
  for (const Split split : splits)
    for (const ShardInfo& shard : info.split(split).shards) bytes += shard.bytes;
  return bytes;
}

}  // namespace

std::string_view name_of(Split split) { return split == Split::train ? "train" : "validation"; }

std::uint64_t SplitInfo::tokens() const {
  return std::accumulate(shards.begin(), shards.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const ShardInfo& shard) { return sum + shard.tokens; });
}

std::uint64_t SplitInfo::documents() const {
  return std::accumulate(shards.begin(), shards.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const ShardInfo& shard) { return sum + shard.documents; });
}

DatasetInfo read_dataset_info(const std::string& folder) {
  const std::string path = folder + "/dataset.json";
  if (std::error_code unreadable; !std::filesystem::exists(path, unreadable) && !unreadable)
    throw UserError("{} holds no dataset.json: name a folder that muster prepare has finished", folder);
  const std::string text = read_text(path);
  DatasetInfo info;
  try {
    const json parsed = json::parse(text);
    if (const std::uint64_t format = count_of(parsed.at("format"));
        std::cmp_not_equal(format, dataset_format))
      throw UserError("{} is of format {}, known is {}: prepare the dataset again with this version", path,
                      format, dataset_format);
    // Sorted keys, as the tokenizer describes itself.
    info.tokenizer = nlohmann::json(parsed.at("tokenizer")).dump();
    info.tokenizer_hash = hash_of(parsed.at("tokenizer_hash"));
    const std::uint64_t vocabulary = count_of(parsed.at("vocabulary"));
    if (vocabulary > std::numeric_limits<std::uint32_t>::max())
      throw std::invalid_argument("a vocabulary of " + std::to_string(vocabulary) + " is too large");
    info.vocabulary = static_cast<std::uint32_t>(vocabulary);
    info.train = split_from(parsed.at("splits").at("train"));
    info.validation = split_from(parsed.at("splits").at("validation"));
  } catch (const json::exception& error) {
    throw UserError("{} cannot be read ({}): restore it or prepare the dataset again", path, error.what());
  } catch (const std::logic_error& error) {  // what hash_of and split_from throw
    throw UserError("{} cannot be read ({}): restore it or prepare the dataset again", path, error.what());
  }
  const auto tokenizer = tokenizer_from_description(info.tokenizer, path);
  if (tokenizer->hash() != info.tokenizer_hash || tokenizer->vocabulary() != info.vocabulary)
    throw UserError(
        "{} contradicts itself: its tokenizer has hash {} and {} tokens: prepare the dataset again", path,
        hex(tokenizer->hash()), tokenizer->vocabulary());
  return info;
}

void write_dataset_info(const std::string& folder, const DatasetInfo& info) {
  const json text{{"format", dataset_format},
                  {"tokenizer", json::parse(info.tokenizer)},
                  {"tokenizer_hash", hex(info.tokenizer_hash)},
                  {"vocabulary", info.vocabulary},
                  {"token_type", name_of(info.token_type())},
                  {"splits", {{"train", to_json(info.train)}, {"validation", to_json(info.validation)}}}};
  write_text_atomically(folder + "/dataset.json", text.dump(2) + "\n");
}

Dataset::Dataset(const std::string& folder, Verify verify)
    : folder_(folder), info_(read_dataset_info(folder)) {
  const bool contents =
      verify == Verify::full || (verify == Verify::automatic && file_bytes(info_) < automatic_limit);
  for (const ShardInfo& shard : info_.train.shards) train_.emplace_back(folder, info_, shard, contents);
  for (const ShardInfo& shard : info_.validation.shards)
    validation_.emplace_back(folder, info_, shard, contents);
}

}  // namespace muster
