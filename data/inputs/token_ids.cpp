#include "data/inputs/token_ids.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "core/error.hpp"
#include "data/inputs/encoding.hpp"

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
    ids[i] = static_cast<std::uint32_t>(stored[i]);
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

}  // namespace

void encode_ids(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded) {
  const InputFile& input = *block.file;
  const File file = File::open_to_read(input.path);
  const std::uint64_t size = size_of(input.id_type);
  const auto read = [&](std::uint64_t begin, std::uint64_t end) {
    return read_ids(file, input.id_type, begin, end, tokenizer.vocabulary());
  };
  const auto end_token = tokenizer.end_token();
  std::vector<std::uint32_t> ids = read(block.begin, block.end);
  bool first = block.begin == input.begin ||
               (end_token && read(block.begin - size, block.begin).front() == *end_token);
  const auto finish = [&](std::size_t begin, std::size_t end, bool last) {
    const std::span<const std::uint32_t> piece = std::span(ids).subspan(begin, end - begin);
    std::uint64_t hash = 0;
    if (first && (last || piece.size() >= hashed_start || block.end == input.end)) {
      hash = hash_of_ids(piece.first(std::min(piece.size(), hashed_start)));
    } else if (first) {
      // The document starts here and goes on in the next block: look ahead.
      std::vector<std::uint32_t> start(piece.begin(), piece.end());
      const std::uint64_t wanted = (hashed_start - piece.size()) * size;
      const auto more = read(block.end, std::min(block.end + wanted, input.end));
      for (const std::uint32_t id : more) {
        start.push_back(id);
        if (id == end_token) break;
      }
      const bool reached_end = start.size() < hashed_start && start.back() != end_token;
      if (reached_end) append_end_token(tokenizer, start);
      hash = hash_of_ids(start);
    }
    encoded.pieces.push_back({.tokens = piece.size(), .first = first, .last = last, .hash = hash});
    first = last;
  };
  std::size_t begin = 0;
  if (end_token)
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (ids[i] == *end_token) {
        finish(begin, i + 1, true);
        begin = i + 1;
      }
  if (begin < ids.size()) {
    const bool last = block.end == input.end;
    if (last) append_end_token(tokenizer, ids);
    finish(begin, ids.size(), last);
  }
  append(ids, type, encoded.tokens);
}

}  // namespace muster
