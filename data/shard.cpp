#include "data/shard.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "data/block_hashes.hpp"
#include "data/dataset.hpp"

namespace muster {
namespace {

// Elements read at once, so that no memory but the stack is needed.
constexpr std::uint64_t piece = 8 * tokens_of_block;

UserError altered(const std::string& path, std::string_view what, std::uint64_t begin, std::uint64_t end) {
  return UserError(
      "{} is altered: {} {} to {} are not those that were written, by their hash: restore it or prepare the "
      "dataset again",
      path, what, begin, end - 1);
}

}  // namespace

Shard::Shard(const std::string& folder, const DatasetInfo& dataset, const ShardInfo& info,
             bool verify_contents)
    : path_(folder + "/" + info.file), vocabulary_(dataset.vocabulary), token_type_(dataset.token_type()) {
  if (std::error_code unreadable; !std::filesystem::exists(path_, unreadable) && !unreadable)
    throw UserError("{} is missing, though {}/dataset.json lists it: restore it or prepare the dataset again",
                    path_, folder);
  file_ = File::open_to_read(path_);
  if (const std::uint64_t size = file_.size(); size != info.bytes)
    throw UserError("{} has {} bytes where dataset.json says {}: restore it or prepare the dataset again",
                    path_, size, info.bytes);
  // Before the library looks into it: a damaged file may lead it astray.
  if (verify_contents) {
    if (const std::uint64_t hash = hash_file(path_); hash != info.hash)
      throw UserError(
          "{} is altered: its checksum is {} where dataset.json says {}: restore it or prepare the "
          "dataset again",
          path_, hex(hash), hex(info.hash));
  }
  h5_ = H5File::open_to_read(path_);
  if (const std::int64_t format = h5_.integer_attribute("/", "format_version"); format != dataset.format)
    throw UserError("{} is of format {} and its dataset of {}: prepare the dataset again with this version",
                    path_, format, dataset.format);
  if (h5_.string_attribute("/", "tokenizer_hash") != hex(dataset.tokenizer_hash))
    throw UserError("{} was made with another tokenizer than its dataset: prepare the dataset again", path_);
  if (const std::int64_t vocabulary = h5_.integer_attribute("/", "vocabulary"); vocabulary != vocabulary_)
    throw UserError("{} has a vocabulary of {} where dataset.json says {}: prepare the dataset again", path_,
                    vocabulary, vocabulary_);
  tokens_ = open(h5_, "tokens", token_type_, info.tokens);
  document_ends_ = open(h5_, "document_ends", DType::i64, info.documents);
  if (info.block_hashes) {
    hash_of_token_hashes_ = info.block_hashes->of_tokens;
    hash_of_document_end_hashes_ = info.block_hashes->of_document_ends;
    token_hashes_ = open(h5_, "token_hashes", DType::u32, blocks_of(info.tokens, tokens_of_block));
    document_end_hashes_ =
        open(h5_, "document_end_hashes", DType::u32, blocks_of(info.documents, document_ends_of_block));
  }
  if (!tokens_.values && !document_ends_.values && !token_hashes_.values && !document_end_hashes_.values)
    h5_ = H5File();
  std::int64_t end = 0;
  if (documents() > 0) read_document_ends(documents() - 1, std::span(&end, 1));
  if (end != static_cast<std::int64_t>(tokens()))
    throw UserError("the last document of {} ends at {} of {} tokens: prepare the dataset again", path_, end,
                    tokens());
}

Shard::Column Shard::open(const H5File& file, const char* name, DType type, std::uint64_t length) const {
  H5Dataset values = file.dataset(name);
  if (values.type() != type)
    throw UserError("{} of {} are numbers of type {}, wanted is {}: prepare the dataset again", name, path_,
                    name_of(values.type()), name_of(type));
  if (values.length() != length)
    throw UserError("{} holds {} {} and by its dataset.json {}: prepare the dataset again", path_,
                    values.length(), name, length);
  Column column{.length = length, .at = values.file_offset(), .values = {}};
  if (!column.at) column.values = std::move(values);
  return column;
}

template <class T>
void Shard::read(const Column& column, std::uint64_t begin, std::span<T> out) const {
  if (column.at)
    file_.read_exactly(std::as_writable_bytes(out), *column.at + begin * sizeof(T));
  else
    column.values->template read<T>(begin, out);
}

// Blocks are read whole, each with the token that follows it. The largest token is returned.
template <class Stored>
std::uint32_t Shard::read_tokens_as(std::uint64_t begin, std::span<std::int32_t> out,
                                    std::span<const std::uint32_t> hashes) const {
  std::array<Stored, piece + 1> memory;
  std::uint32_t largest = 0;
  while (!out.empty()) {
    const std::uint64_t before = hashes.empty() ? 0 : begin % tokens_of_block, first = begin - before;
    std::uint64_t wanted = std::min<std::uint64_t>(before + out.size(), piece + 1);
    if (!hashes.empty())
      wanted =
          std::min(std::max<std::uint64_t>(blocks_of(wanted - 1, tokens_of_block), 1) * tokens_of_block + 1,
                   tokens() - first);
    const std::span<Stored> stored = std::span(memory).first(wanted);
    if (!hashes.empty())
      __builtin_prefetch(&hashes[first / tokens_of_block]);  // comes while the tokens are read
    read(tokens_, first, stored);
    for (std::uint64_t at = 0; !hashes.empty() && (at == 0 || at + 1 < wanted); at += tokens_of_block) {
      const auto block = stored.subspan(at, std::min(tokens_of_block + 1, wanted - at));
      if (hash_of_block(std::as_bytes(block)) != hashes[(first + at) / tokens_of_block])
        throw altered(path_, "tokens", first + at, first + at + block.size());
    }
    const std::size_t count = std::min<std::size_t>(wanted - before, out.size());
    const std::span<const Stored> asked = stored.subspan(before, count);
    Stored most = 0;
    for (std::size_t i = 0; i < count; ++i) {
      most = std::max(most, asked[i]);
      out[i] = static_cast<std::int32_t>(asked[i]);
    }
    largest = std::max<std::uint32_t>(largest, most);
    out = out.subspan(count);
    begin += count;
  }
  return largest;
}

void Shard::read_tokens(std::uint64_t begin, std::span<std::int32_t> out,
                        std::span<const std::uint32_t> hashes) const {
  check(begin <= tokens() && out.size() <= tokens() - begin, "tokens past the end of a shard");
  const std::uint32_t largest = token_type_ == DType::u16 ? read_tokens_as<std::uint16_t>(begin, out, hashes)
                                                          : read_tokens_as<std::uint32_t>(begin, out, hashes);
  if (largest < vocabulary_) return;
  const auto bad = std::find_if(out.begin(), out.end(), [&](std::int32_t token) {
    return static_cast<std::uint32_t>(token) >= vocabulary_;
  });
  throw UserError(
      "token {} at offset {} of {} lies outside the vocabulary of {}: restore the file or prepare the "
      "dataset again",
      static_cast<std::uint32_t>(*bad), begin + static_cast<std::uint64_t>(bad - out.begin()), path_,
      vocabulary_);
}

void Shard::read_document_ends(std::uint64_t begin, std::span<std::int64_t> out,
                               std::span<const std::uint32_t> hashes) const {
  if (!hashes.empty()) __builtin_prefetch(&hashes[begin / document_ends_of_block]);
  read(document_ends_, begin, out);
  if (hashes.empty()) return;
  check(begin % document_ends_of_block == 0, "a block of document ends is read from its start");
  for (std::uint64_t at = 0; at < out.size(); at += document_ends_of_block) {
    const auto block = out.subspan(at, std::min<std::uint64_t>(document_ends_of_block, out.size() - at));
    if (hash_of_block(std::as_bytes(block)) != hashes[(begin + at) / document_ends_of_block])
      throw altered(path_, "document ends", begin + at, begin + at + block.size());
  }
}

void Shard::read_hashes(const Column& column, const char* name, std::uint64_t wanted,
                        std::span<std::uint32_t> out) const {
  read(column, 0, out);
  if (hash_bytes(std::as_bytes(out)) != wanted)
    throw UserError(
        "{} is altered: its {} are not those of dataset.json: restore it or prepare the dataset again", path_,
        name);
}

void Shard::read_token_hashes(std::span<std::uint32_t> out) const {
  read_hashes(token_hashes_, "token_hashes", hash_of_token_hashes_, out);
}

void Shard::read_document_end_hashes(std::span<std::uint32_t> out) const {
  read_hashes(document_end_hashes_, "document_end_hashes", hash_of_document_end_hashes_, out);
}

}  // namespace muster
