#include "data/dataset.hpp"

#include <array>
#include <filesystem>
#include <fmt/ranges.h>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"
#include "core/json_text.hpp"
#include "data/tokenizer.hpp"

namespace muster {
namespace {

using json = nlohmann::json;

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

std::string to_text(const SplitInfo& split) {
  std::vector<std::string> shards;
  for (const ShardInfo& shard : split.shards) {
    std::string blocks;
    if (shard.block_hashes)
      blocks = fmt::format(", \"token_hashes\": \"{}\", \"document_end_hashes\": \"{}\"",
                           hex(shard.block_hashes->of_tokens), hex(shard.block_hashes->of_document_ends));
    shards.push_back(fmt::format(
        "\n    {{\"file\": \"{}\", \"tokens\": {}, \"documents\": {}, \"bytes\": {}, \"xxh3\": \"{}\"{}}}",
        shard.file, shard.tokens, shard.documents, shard.bytes, hex(shard.hash), blocks));
  }
  return fmt::format("{{\"text_bytes\": {}, \"shards\": [{}]}}", split.text_bytes, fmt::join(shards, ","));
}

SplitInfo split_from(const json& text, std::int64_t format) {
  SplitInfo split;
  split.text_bytes = count_of(text.at("text_bytes"));
  for (const json& entry : text.at("shards")) {
    ShardInfo shard{.file = entry.at("file"),
                    .tokens = count_of(entry.at("tokens")),
                    .documents = count_of(entry.at("documents")),
                    .bytes = count_of(entry.at("bytes")),
                    .hash = hash_of(entry.at("xxh3"))};
    if (format > 1)
      shard.block_hashes = {hash_of(entry.at("token_hashes")), hash_of(entry.at("document_end_hashes"))};
    if (shard.file.find('/') != std::string::npos)
      throw std::invalid_argument("shard '" + shard.file + "' lies outside the folder");
    split.shards.push_back(std::move(shard));
  }
  return split;
}

void refuse_shards_listed_twice(const DatasetInfo& info) {
  std::set<std::string_view> files;
  for (const Split split : splits)
    for (const ShardInfo& shard : info.split(split).shards)
      if (!files.insert(shard.file).second)
        throw std::invalid_argument("shard '" + shard.file + "' is listed twice");
}

DatasetInfo parse_info(const std::string& text, const std::string& path) {
  if (nests_deeper_than(text, most_json_depth)) throw std::invalid_argument("it is nested too deeply");
  const json parsed = json::parse(text);
  DatasetInfo info;
  const std::uint64_t format = count_of(parsed.at("format"));
  if (format < 1 || format > static_cast<std::uint64_t>(dataset_format))
    throw UserError("{} is of format {}, known are 1 to {}: prepare the dataset again with this version",
                    path, format, dataset_format);
  info.format = static_cast<decltype(info.format)>(format);
  if (info.format > 1 && seal_of(text) != Seal::holds)
    throw std::invalid_argument("its content does not match its checksum");
  // Sorted keys, as the tokenizer describes itself.
  info.tokenizer = nlohmann::json(parsed.at("tokenizer")).dump();
  info.tokenizer_hash = hash_of(parsed.at("tokenizer_hash"));
  const std::uint64_t vocabulary = count_of(parsed.at("vocabulary"));
  if (vocabulary > std::numeric_limits<std::uint32_t>::max())
    throw std::invalid_argument("a vocabulary of " + std::to_string(vocabulary) + " is too large");
  info.vocabulary = static_cast<std::uint32_t>(vocabulary);
  info.train = split_from(parsed.at("splits").at("train"), info.format);
  info.validation = split_from(parsed.at("splits").at("validation"), info.format);
  refuse_shards_listed_twice(info);
  return info;
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
    info = parse_info(text, path);
  } catch (const json::exception& error) {
    throw UserError("{} cannot be read ({}): restore it or prepare the dataset again", path, error.what());
  } catch (const std::logic_error& error) {
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
  // One shard a line: a person reads it.
  const std::string body = fmt::format(
      "{{\n\"format\": {},\n\"tokenizer\": {},\n\"tokenizer_hash\": \"{}\",\n\"vocabulary\": {},\n"
      "\"token_type\": \"{}\",\n\"splits\": {{\n  \"train\": {},\n  \"validation\": {}}}",
      info.format, info.tokenizer, hex(info.tokenizer_hash), info.vocabulary, name_of(info.token_type()),
      to_text(info.train), to_text(info.validation));
  write_text_atomically(folder + "/dataset.json", sealed(body));
}

Dataset::Dataset(const std::string& folder, Verify verify)
    : folder_(folder), info_(read_dataset_info(folder)), verify_(verify) {
  contents_ = verify == Verify::full || (verify == Verify::automatic && file_bytes(info_) < automatic_limit);
  if (verify == Verify::size)
    for (SplitInfo* split : {&info_.train, &info_.validation})
      for (ShardInfo& shard : split->shards) shard.block_hashes.reset();
  for (const ShardInfo& shard : info_.train.shards) train_.emplace_back(folder, info_, shard, contents_);
  for (const ShardInfo& shard : info_.validation.shards)
    validation_.emplace_back(folder, info_, shard, contents_);
}

std::string Dataset::describe_checks() const {
  if (verify_ == Verify::size)
    return "its sizes were checked, and nothing that is read: data.verify = \"size\"";
  if (info_.format > 1)
    return contents_ ? "its bytes were checked, and each block is again when it is read"
                     : "each of its blocks is checked when it is read";
  return contents_
             ? "its bytes were checked, and nothing when it is read: format 1 has no hashes of blocks"
             : "its sizes were checked, and nothing that is read: format 1 has no hashes of blocks, and "
               "data.verify = \"full\" would check all bytes now";
}

}  // namespace muster
