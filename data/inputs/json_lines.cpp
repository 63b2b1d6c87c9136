#include "data/inputs/json_lines.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "data/inputs/encoding.hpp"
#include "data/inputs/json_text.hpp"

namespace muster {
namespace {

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
    if (text.size() > longest_line) throw too_long_line(file.path(), line_at(file, begin));
    std::string more = read_range(file, end, std::min(end + block_bytes, block.file->end));
    end += more.size();
    if (const std::size_t newline = more.find('\n'); newline != std::string::npos) more.resize(newline + 1);
    text += more;
  }
  return text;
}

// Without spaces, and a byte order mark, in front.
std::string_view without_spaces(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  text.remove_prefix(std::min(text.size(), text.find_first_not_of(" \t\r\n")));
  return text;
}

bool has_text(std::string_view object) {
  std::string text;
  return !object.empty() && !text_of_json(object, text);
}

UserError on_lines(const std::string& path, const char* what, const char* filter) {
  return UserError("{} is {}, and documents of JSON stand on a line each: write it anew by jq -c '{}'", path,
                   what, filter);
}

}  // namespace

bool are_json_lines(const std::string& path, const std::string& extension, std::string_view start) {
  if (extension == ".txt") return false;
  const bool whole = start.size() < block_bytes;
  start = without_spaces(start);
  const bool named = extension == ".jsonl" || extension == ".ndjson";
  if (start.starts_with('[') && has_text(object_at_start(without_spaces(start.substr(1)))))
    throw on_lines(path, "a JSON array", ".[]");
  if (!start.starts_with('{')) return named;
  const std::string_view object = object_at_start(start), line = start.substr(0, start.find('\n'));
  if (object.empty()) return named || (extension == ".json" && !whole && line.size() == start.size());
  if (object.size() > line.size()) {
    if (has_text(object)) throw on_lines(path, "JSON over several lines", ".");
    return named;
  }
  return named || has_text(line) ||
         (extension == ".json" && without_spaces(start.substr(object.size())).starts_with('{'));
}

std::uint64_t line_at(const File& file, std::uint64_t position) {
  std::uint64_t line = 1;
  for (std::uint64_t at = 0; at < position; at += block_bytes) {
    const std::string text = read_range(file, at, std::min(at + block_bytes, position));
    line += static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n'));
  }
  return line;
}

UserError too_long_line(const std::string& path, std::uint64_t number) {
  return UserError("{}:{} is longer than {} bytes: divide it, or give it as a text file", path, number,
                   longest_line);
}

void encode_json_lines(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded) {
  const File file = File::open_to_read(block.file->path);
  std::uint64_t begin = 0;
  const std::string lines = block.contents ? *block.contents : lines_of(file, block, begin);
  std::uint64_t number = block.contents ? block.first_line : 0;
  std::vector<std::uint32_t> tokens;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.size(), lines.find('\n', at));
    const std::string_view line = std::string_view(lines).substr(at, end - at);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      std::string text;
      if (const auto fault = text_of_json(line, text)) {
        encoded.bad_lines.push_back({begin + at, *fault, number});
      } else if (!text.empty()) {
        tokens.clear();
        tokenizer.encode(text, tokens);
        append_end_token(tokenizer, tokens);
        append(tokens, type, encoded.tokens);
        encoded.pieces.push_back({tokens.size(), text.size(), true, true, hash_of_start(text)});
      }
    }
    at = end + 1;
    if (number > 0) ++number;
  }
}

}  // namespace muster
