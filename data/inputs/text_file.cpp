#include "data/inputs/text_file.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "data/inputs/encoding.hpp"

namespace muster {

void encode_text(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded) {
  const std::string text = block.contents
                               ? *block.contents
                               : read_range(File::open_to_read(block.file->path), block.begin, block.end);
  if (text.empty()) return;  // only compressed files can come to nothing
  Piece piece{.text_bytes = text.size(), .first = block.begin == block.file->begin, .last = block.last};
  if (piece.first) {
    if (const std::size_t zero = text.substr(0, hashed_start).find('\0'); zero != std::string::npos)
      throw UserError(
          "{} is no text, byte {} is zero: leave it out (tokens are read from .npy and .bin files)",
          block.file->path, block.begin + zero);
    piece.hash = hash_of_start(text);
  }
  std::vector<std::uint32_t> tokens;
  tokenizer.encode(text, tokens);
  if (piece.last) append_end_token(tokenizer, tokens);
  piece.tokens = tokens.size();
  append(tokens, type, encoded.tokens);
  encoded.pieces.push_back(piece);
}

std::uint64_t cut_before_end(const InputFile& input, double share) {
  const auto kept = static_cast<std::uint64_t>(static_cast<double>(input.end - input.begin) * (1 - share));
  const std::uint64_t position = std::max(input.begin + kept, input.begin + 1);
  const std::string text =
      read_range(File::open_to_read(input.path), position - 1, std::min(position + block_bytes, input.end));
  // text[i] lies before position + i.
  if (const std::size_t newline = text.find('\n');
      newline <= (input.end - position) / 2 && position < input.end)
    return position + newline;
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  return position - 1 +
         static_cast<std::uint64_t>(std::find_if_not(text.begin() + 1, text.end(), continues) - text.begin());
}

}  // namespace muster
