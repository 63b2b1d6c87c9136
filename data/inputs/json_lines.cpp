#include "data/inputs/json_lines.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "data/inputs/encoding.hpp"
#include "data/inputs/json_text.hpp"

namespace muster {
namespace {

constexpr std::uint64_t longest_line = std::uint64_t{256} << 20;  // held in memory whole

// The number of the line that starts at `position`, from 1.
std::uint64_t line_at(const File& file, std::uint64_t position) {
  std::uint64_t line = 1;
  for (std::uint64_t at = 0; at < position; at += block_bytes) {
    const std::string text = read_range(file, at, std::min(at + block_bytes, position));
    line += static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n'));
  }
  return line;
}

// The lines that start in the block, whole; `begin` becomes where the first one starts.
std::string lines_of(const File& file, const InputBlock& block, std::uint64_t& begin) {
  begin = block.begin;
  std::string text = read_range(file, begin == 0 ? 0 : begin - 1, block.end);
  if (begin > 0) {
    const std::size_t newline = text.find('\n');
    const std::size_t before = newline == std::string::npos ? text.size() : newline + 1;
    begin += before - 1;
    text.erase(0, before);
  }
  std::uint64_t end = block.end;
  while (!text.empty() && text.back() != '\n' && end < block.file->end) {
    if (text.size() > longest_line)
      throw UserError("{}:{} is longer than {} bytes: divide it, or give it as a text file", file.path(),
                      line_at(file, begin), longest_line);
    std::string more = read_range(file, end, std::min(end + block_bytes, block.file->end));
    end += more.size();
    if (const std::size_t newline = more.find('\n'); newline != std::string::npos) more.resize(newline + 1);
    text += more;
  }
  return text;
}

}  // namespace

void encode_json_lines(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded) {
  const File file = File::open_to_read(block.file->path);
  std::uint64_t begin = 0;
  const std::string lines = lines_of(file, block, begin);
  std::vector<std::uint32_t> tokens;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.size(), lines.find('\n', at));
    const std::string_view line = std::string_view(lines).substr(at, end - at);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      std::string text;
      if (const auto fault = text_of_json(line, text))
        throw UserError("{}:{} {}: correct or remove the line", file.path(), line_at(file, begin + at),
                        *fault);
      if (!text.empty()) {
        tokens.clear();
        tokenizer.encode(text, tokens);
        append_end_token(tokenizer, tokens);
        append(tokens, type, encoded.tokens);
        encoded.pieces.push_back({tokens.size(), text.size(), true, true, hash_of_start(text)});
      }
    }
    at = end + 1;
  }
}

}  // namespace muster
