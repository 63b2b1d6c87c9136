#include "data/inputs/token_ids.hpp"

#include <algorithm>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "core/error.hpp"
#include "data/inputs/encoding.hpp"
#include "data/inputs/megatron.hpp"

namespace muster {
namespace {

template <class Stored>
void read_ids_as(const File& file, std::uint64_t begin, std::span<std::uint32_t> ids,
                 std::uint32_t vocabulary) {
  std::vector<Stored> stored(ids.size());
  file.read_exactly(std::as_writable_bytes(std::span(stored)), begin);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (std::cmp_less(stored[i], 0) || std::cmp_greater_equal(stored[i], vocabulary))
      throw UserError(
          "token {} at byte {} of {} lies outside the vocabulary of {}: correct --vocabulary or the file",
          stored[i], begin + i * sizeof(Stored), file.path(), vocabulary);
    ids[i] = static_cast<std::uint32_t>(static_cast<std::make_unsigned_t<Stored>>(stored[i]));
  }
}

std::vector<std::uint32_t> read_ids(const File& file, IdType type, std::uint64_t begin, std::uint64_t end,
                                    std::uint32_t vocabulary) {
  std::vector<std::uint32_t> ids((end - begin) / size_of(type));
  const auto read_as = [&]<class Stored>(Stored) { read_ids_as<Stored>(file, begin, ids, vocabulary); };
  switch (type) {
    case IdType::u8:
      read_as(std::uint8_t{});
      break;
    case IdType::i8:
      read_as(std::int8_t{});
      break;
    case IdType::u16:
      read_as(std::uint16_t{});
      break;
    case IdType::i16:
      read_as(std::int16_t{});
      break;
    case IdType::u32:
      read_as(std::uint32_t{});
      break;
    case IdType::i32:
      read_as(std::int32_t{});
      break;
    case IdType::u64:
      read_as(std::uint64_t{});
      break;
    case IdType::i64:
      read_as(std::int64_t{});
      break;
  }
  return ids;
}

// Where documents start and end in a block, and in what follows it.
class Borders {
 public:
  Borders(const InputFile& file, std::optional<std::uint32_t> end_token)
      : file_(&file), end_token_(end_token) {
    if (!file.index.empty()) index_.emplace(file.index);
  }

  // Whether a document starts at `position`, before which the token `before` lies.
  bool start_at(std::uint64_t position, std::uint32_t before) const {
    if (index_) return !index_->borders(position, position, file_->end).empty();
    return before == end_token_;
  }
  // How many of `ids`, which lie from `position` on, each document ends behind. The end of the file is one.
  std::vector<std::size_t> ends(std::uint64_t position, std::span<const std::uint32_t> ids) const {
    std::vector<std::size_t> ends;
    const std::uint64_t size = size_of(file_->id_type), end = position + ids.size() * size;
    if (index_) {
      for (const std::uint64_t at : index_->borders(position, end, file_->end))
        if (at > position) ends.push_back((at - position) / size);
      return ends;
    }
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (ids[i] == end_token_) ends.push_back(i + 1);
    if (end == file_->end && (ends.empty() || ends.back() < ids.size())) ends.push_back(ids.size());
    return ends;
  }

 private:
  const InputFile* file_;
  std::optional<std::uint32_t> end_token_;
  std::optional<MegatronIndex> index_;
};

}  // namespace

std::uint64_t cut_ids_before_end(const InputFile& file, double share) {
  const std::uint64_t size = size_of(file.id_type), tokens = (file.end - file.begin) / size;
  const auto kept = static_cast<std::uint64_t>(static_cast<double>(tokens) * (1 - share));
  return file.begin + std::max<std::uint64_t>(kept, 1) * size;
}

void encode_ids(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded) {
  const InputFile& input = *block.file;
  const File file = File::open_to_read(input.path);
  const std::uint64_t size = size_of(input.id_type);
  const auto read = [&](std::uint64_t begin, std::uint64_t end) {
    return read_ids(file, input.id_type, begin, end, tokenizer.vocabulary());
  };
  const auto end_token = tokenizer.end_token();
  const Borders borders(input, end_token);
  const std::vector<std::uint32_t> ids = read(block.begin, block.end);
  bool first = block.begin == input.begin ||
               borders.start_at(block.begin, read(block.begin - size, block.begin).front());
  const auto end_it = [&](std::vector<std::uint32_t>& document) {
    if (end_token && document.back() != *end_token) document.push_back(*end_token);
  };
  const auto add = [&](std::size_t begin, std::size_t end, bool last) {
    std::vector<std::uint32_t> piece(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                     ids.begin() + static_cast<std::ptrdiff_t>(end));
    if (last) end_it(piece);
    append(piece, type, encoded.tokens);
    encoded.pieces.push_back({.tokens = piece.size(), .first = first, .last = last});
    if (first) {
      if (!last && piece.size() < hashed_start) {
        // The document goes on in the next block: look ahead.
        const std::uint64_t wanted = (hashed_start - piece.size()) * size;
        auto more = read(block.end, std::min(block.end + wanted, input.end));
        const std::vector<std::size_t> ends = borders.ends(block.end, more);
        if (!ends.empty()) more.resize(ends.front());
        piece.insert(piece.end(), more.begin(), more.end());
        if (!ends.empty()) end_it(piece);
      }
      piece.resize(std::min(piece.size(), hashed_start));
      encoded.pieces.back().hash = hash_of_ids(piece);
    }
    first = last;
  };
  std::size_t begin = 0;
  for (const std::size_t end : borders.ends(block.begin, ids)) {
    add(begin, end, true);
    begin = end;
  }
  if (begin < ids.size()) add(begin, ids.size(), false);
}

}  // namespace muster
