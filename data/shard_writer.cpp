#include "data/shard_writer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <unistd.h>
#include <utility>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace muster {
namespace {

constexpr std::size_t spool_buffer = std::size_t{1} << 20;

}  // namespace

ShardWriter::Spool::Spool(const std::string& path) : file_(File::create(path)), buffer_() {
  buffer_.reserve(spool_buffer);
}

ShardWriter::Spool::~Spool() {
  if (file_.descriptor() >= 0) unlink(file_.path().c_str());
}

void ShardWriter::Spool::append(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > spool_buffer) flush();
  if (bytes.size() > spool_buffer)
    file_.write(bytes);
  else
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  size_ += bytes.size();
}

void ShardWriter::Spool::flush() {
  file_.write(buffer_);
  buffer_.clear();
}

template <class Take>
void ShardWriter::Spool::read(std::uint64_t begin, std::uint64_t end, Take&& take) {
  flush();
  const File file = File::open_to_read(file_.path());
  std::vector<std::byte> piece(spool_buffer);
  while (begin < end) {
    const auto bytes = std::span(piece).first(std::min<std::uint64_t>(spool_buffer, end - begin));
    file.read_exactly(bytes, begin);
    take(std::span<const std::byte>(bytes));
    begin += bytes.size();
  }
}

ShardWriter::ShardWriter(std::string folder, Split split, const DatasetInfo& dataset,
                         std::uint64_t shard_tokens)
    : folder_(std::move(folder)),
      split_(split),
      dataset_(&dataset),
      shard_bytes_(shard_tokens * size_of(dataset.token_type())),
      token_bytes_(size_of(dataset.token_type())) {
  open();
}

std::string ShardWriter::path(const std::string& suffix) const {
  return fmt::format("{}/{}-{:05}.{}", folder_, name_of(split_), shards_.size(), suffix);
}

void ShardWriter::open() {
  tokens_.emplace(path("tokens.partial"));
  ends_.emplace(path("ends.partial"));
  documents_end_ = 0;
}

void ShardWriter::append(std::span<const std::byte> tokens) {
  tokens_->append(tokens);
  // The document that is being written does not fit: it moves to the next shard.
  if (tokens_->size() > shard_bytes_ && documents_end_ > 0) close_shard();
}

void ShardWriter::end_document() {
  check(tokens_->size() > documents_end_, "a document without tokens");
  documents_end_ = tokens_->size();
  const auto end = static_cast<std::int64_t>(documents_end_ / token_bytes_);
  ends_->append(std::as_bytes(std::span(&end, 1)));
}

std::vector<ShardInfo> ShardWriter::finish() {
  check(tokens_->size() == documents_end_, "a document without an end");
  if (documents_end_ > 0) close_shard();
  tokens_.reset();
  ends_.reset();
  return std::move(shards_);
}

template <class T>
std::vector<std::uint32_t> ShardWriter::copy(Spool& spool, std::uint64_t bytes, H5Dataset dataset,
                                             BlockHasher hasher) {
  std::uint64_t at = 0;
  spool.read(0, bytes, [&](std::span<const std::byte> piece) {
    const std::span values(reinterpret_cast<const T*>(piece.data()), piece.size() / sizeof(T));
    dataset.write<T>(at, values);
    hasher.add(piece);
    at += values.size();
  });
  return hasher.finish();
}

void ShardWriter::close_shard() {
  const std::string final_path = path("h5"), partial = path("h5.partial");
  ShardInfo info{.file = std::filesystem::path(final_path).filename().string(),
                 .tokens = documents_end_ / token_bytes_,
                 .documents = ends_->size() / sizeof(std::int64_t)};
  {
    H5File file = H5File::create(partial);
    file.set_attribute("/", "format_version", dataset_format);
    file.set_attribute("/", "vocabulary", std::int64_t{dataset_->vocabulary});
    file.set_attribute("/", "tokenizer_hash", hex(dataset_->tokenizer_hash));
    const DType type = dataset_->token_type();
    H5Dataset tokens = file.create_dataset("tokens", type, info.tokens);
    const BlockHasher token_hasher(tokens_of_block * token_bytes_, token_bytes_);
    const std::vector<std::uint32_t> token_hashes =
        type == DType::u16 ? copy<std::uint16_t>(*tokens_, documents_end_, std::move(tokens), token_hasher)
                           : copy<std::uint32_t>(*tokens_, documents_end_, std::move(tokens), token_hasher);
    const std::vector<std::uint32_t> end_hashes = copy<std::int64_t>(
        *ends_, ends_->size(), file.create_dataset("document_ends", DType::i64, info.documents),
        BlockHasher(document_ends_of_block * sizeof(std::int64_t), 0));
    const auto add_hashes = [&](const char* name, const std::vector<std::uint32_t>& hashes) {
      file.create_dataset(name, DType::u32, hashes.size()).write<std::uint32_t>(0, hashes);
      return hash_bytes(std::as_bytes(std::span(hashes)));
    };
    info.block_hashes = {.of_tokens = add_hashes("token_hashes", token_hashes),
                         .of_document_ends = add_hashes("document_end_hashes", end_hashes)};
    file.close();
  }
  sync_path(partial);
  info.hash = hash_file(partial);
  info.bytes = File::open_to_read(partial).size();
  if (rename(partial.c_str(), final_path.c_str()) != 0)
    throw UserError("cannot rename {} to {}: {}: check the folder's permissions", partial, final_path,
                    std::strerror(errno));
  sync_path(folder_);
  shards_.push_back(std::move(info));

  Spool full = std::move(*tokens_);
  const std::uint64_t written = documents_end_;
  open();
  full.read(written, full.size(), [&](std::span<const std::byte> piece) { tokens_->append(piece); });
}

}  // namespace muster
