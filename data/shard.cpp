#include "data/shard.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "data/dataset.hpp"

namespace muster {
namespace {

constexpr std::size_t piece = 8192;  // elements read at once, so that no memory but the stack is needed

template <class Stored, class Read>
void read_in_pieces(std::uint64_t begin, std::span<std::int32_t> out, std::uint32_t& largest, Read&& read) {
  std::array<Stored, piece> stored;
  while (!out.empty()) {
    const std::size_t count = std::min(out.size(), piece);
    read(begin, std::span<Stored>(stored).first(count));
    std::uint32_t most = 0;
    for (std::size_t i = 0; i < count; ++i) {
      most = std::max<std::uint32_t>(most, stored[i]);
      out[i] = static_cast<std::int32_t>(stored[i]);
    }
    largest = std::max(largest, most);
    out = out.subspan(count);
    begin += count;
  }
}

}  // namespace

Shard::Shard(const std::string& folder, const DatasetInfo& dataset, const ShardInfo& info,
             bool verify_contents)
    : path_(folder + "/" + info.file),
      tokens_(info.tokens),
      documents_(info.documents),
      vocabulary_(dataset.vocabulary),
      token_type_(dataset.token_type()) {
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
  if (const std::int64_t format = h5_.integer_attribute("/", "format_version"); format != dataset_format)
    throw UserError("{} is of format {}, known is {}: prepare the dataset again with this version", path_,
                    format, dataset_format);
  if (h5_.string_attribute("/", "tokenizer_hash") != hex(dataset.tokenizer_hash))
    throw UserError("{} was made with another tokenizer than its dataset: prepare the dataset again", path_);
  if (const std::int64_t vocabulary = h5_.integer_attribute("/", "vocabulary"); vocabulary != vocabulary_)
    throw UserError("{} has a vocabulary of {} where dataset.json says {}: prepare the dataset again", path_,
                    vocabulary, vocabulary_);
  h5_tokens_ = h5_.dataset("tokens");
  h5_document_ends_ = h5_.dataset("document_ends");
  if (h5_tokens_->type() != token_type_ || h5_document_ends_->type() != DType::i64)
    throw UserError("{} holds tokens of {} and document ends of {}, wanted are {} and i64: prepare it again",
                    path_, name_of(h5_tokens_->type()), name_of(h5_document_ends_->type()),
                    name_of(token_type_));
  if (h5_tokens_->length() != tokens_ || h5_document_ends_->length() != documents_)
    throw UserError("{} holds {} tokens and {} documents where dataset.json says {} and {}: prepare it again",
                    path_, h5_tokens_->length(), h5_document_ends_->length(), tokens_, documents_);
  tokens_at_ = h5_tokens_->file_offset();
  document_ends_at_ = h5_document_ends_->file_offset();
  if (tokens_at_ && document_ends_at_) {
    h5_tokens_.reset();
    h5_document_ends_.reset();
    h5_ = H5File();
  }
  std::int64_t end = 0;
  if (documents_ > 0) read_document_ends(documents_ - 1, std::span(&end, 1));
  if (end != static_cast<std::int64_t>(tokens_))
    throw UserError("the last document of {} ends at {} of {} tokens: prepare the dataset again", path_, end,
                    tokens_);
}

void Shard::read_tokens(std::uint64_t begin, std::span<std::int32_t> out) const {
  std::uint32_t largest = 0;
  const auto read = [&]<class Stored>(std::uint64_t at, std::span<Stored> stored) {
    if (tokens_at_)
      file_.read_exactly(std::as_writable_bytes(stored), *tokens_at_ + at * sizeof(Stored));
    else
      h5_tokens_->read<Stored>(at, stored);
  };
  if (token_type_ == DType::u16)
    read_in_pieces<std::uint16_t>(begin, out, largest, read);
  else
    read_in_pieces<std::uint32_t>(begin, out, largest, read);
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

void Shard::read_document_ends(std::uint64_t begin, std::span<std::int64_t> out) const {
  if (document_ends_at_)
    file_.read_exactly(std::as_writable_bytes(out), *document_ends_at_ + begin * sizeof(std::int64_t));
  else
    h5_document_ends_->read<std::int64_t>(begin, out);
}

}  // namespace muster
