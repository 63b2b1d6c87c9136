#include "data/input.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <utility>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t hashed = 65536;                             // bytes or ids at a document's start
constexpr std::uint64_t longest_line = std::uint64_t{256} << 20;  // of JSON, held in memory whole

std::uint64_t hash_start(std::string_view text) {
  return hash_bytes(std::as_bytes(std::span(text.substr(0, hashed))));
}

template <class Stored>
void append_as(std::span<const std::uint32_t> tokens, std::vector<std::byte>& out) {
  const std::size_t at = out.size();
  out.resize(at + tokens.size() * sizeof(Stored));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto token = static_cast<Stored>(tokens[i]);
    std::memcpy(out.data() + at + i * sizeof(Stored), &token, sizeof(Stored));
  }
}

void append(std::span<const std::uint32_t> tokens, DType type, std::vector<std::byte>& out) {
  if (type == DType::u16)
    append_as<std::uint16_t>(tokens, out);
  else
    append_as<std::uint32_t>(tokens, out);
}

std::string read_range(const File& file, std::uint64_t begin, std::uint64_t end) {
  std::string text(end - begin, '\0');
  file.read_exactly(std::as_writable_bytes(std::span(text)), begin);
  return text;
}

void append_end_token(const Tokenizer& tokenizer, std::vector<std::uint32_t>& tokens) {
  if (const auto end_token = tokenizer.end_token()) tokens.push_back(*end_token);
}

void encode_text(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded) {
  const std::string text = read_range(File::open_to_read(block.file->path), block.begin, block.end);
  Piece piece{.text_bytes = text.size(),
              .first = block.begin == block.file->begin,
              .last = block.end == block.file->end};
  if (piece.first) {
    if (const std::size_t zero = text.substr(0, hashed).find('\0'); zero != std::string::npos)
      throw UserError(
          "{} is no text, byte {} is zero: leave it out (tokens are read from .npy and .bin files)",
          block.file->path, block.begin + zero);
    piece.hash = hash_start(text);
  }
  std::vector<std::uint32_t> tokens;
  tokenizer.encode(text, tokens);
  if (piece.last) append_end_token(tokenizer, tokens);
  piece.tokens = tokens.size();
  append(tokens, type, encoded.tokens);
  encoded.pieces.push_back(piece);
}

// Where the last `share` of a text begins: with a line, unless that leaves less than half of it; else with a character.
// Of a single byte nothing is cut off.
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

void encode_jsonl(const InputBlock& block, const Tokenizer& tokenizer, DType type, Encoded& encoded) {
  const File file = File::open_to_read(block.file->path);
  std::uint64_t begin = 0;
  const std::string lines = lines_of(file, block, begin);
  std::vector<std::uint32_t> tokens;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.size(), lines.find('\n', at));
    const std::string_view line = std::string_view(lines).substr(at, end - at);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      std::string text;
      try {
        text = json::parse(line).at("text").get<std::string>();
      } catch (const json::exception&) {
        throw UserError("{}:{} is no JSON object with a string \"text\": correct or remove the line",
                        file.path(), line_at(file, begin + at));
      }
      if (!text.empty()) {
        tokens.clear();
        tokenizer.encode(text, tokens);
        append_end_token(tokenizer, tokens);
        append(tokens, type, encoded.tokens);
        encoded.pieces.push_back({tokens.size(), text.size(), true, true, hash_start(text)});
      }
    }
    at = end + 1;
  }
}

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

std::vector<std::uint32_t> read_ids(const File& file, DType type, std::uint64_t begin, std::uint64_t end,
                                    std::uint32_t vocabulary) {
  std::vector<std::uint32_t> ids((end - begin) / size_of(type));
  switch (type) {
    case DType::u16:
      read_ids_as<std::uint16_t>(file, begin, ids, vocabulary);
      break;
    case DType::u32:
      read_ids_as<std::uint32_t>(file, begin, ids, vocabulary);
      break;
    case DType::i32:
      read_ids_as<std::int32_t>(file, begin, ids, vocabulary);
      break;
    default:
      read_ids_as<std::int64_t>(file, begin, ids, vocabulary);
  }
  return ids;
}

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
    if (first && (last || piece.size() >= hashed || block.end == input.end)) {
      hash = hash_bytes(std::as_bytes(piece.first(std::min(piece.size(), hashed))));
    } else if (first) {
      // The document starts here and goes on in the next block: look ahead.
      std::vector<std::uint32_t> start(piece.begin(), piece.end());
      const std::uint64_t wanted = (hashed - piece.size()) * size;
      const auto more = read(block.end, std::min(block.end + wanted, input.end));
      for (const std::uint32_t id : more) {
        start.push_back(id);
        if (id == end_token) break;
      }
      const bool reached_end = start.size() < hashed && start.back() != end_token;
      if (reached_end) append_end_token(tokenizer, start);
      hash = hash_bytes(std::as_bytes(std::span(start)));
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

// Where the numbers of a .npy file lie, and their type.
// Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
InputFile examine_npy(const std::string& path) {
  const File file = File::open_to_read(path);
  const auto refuse = [&](const std::string& what) {
    return UserError("{} {}: save a one-dimensional array of uint16, uint32, int32 or int64 with numpy.save",
                     path, what);
  };
  const std::string start = read_range(file, 0, std::min<std::uint64_t>(file.size(), 12));
  if (start.size() < 12 || !start.starts_with("\x93NUMPY")) throw refuse("is no .npy file");
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint64_t>(static_cast<unsigned char>(start[i]));
  };
  const bool short_header = byte(6) == 1;
  const std::uint64_t header_at = short_header ? 10 : 12;
  std::uint64_t header_bytes = byte(8) | byte(9) << 8;
  if (!short_header) header_bytes |= byte(10) << 16 | byte(11) << 24;
  if (header_bytes > 65536 || header_at + header_bytes > file.size()) throw refuse("has a torn header");
  const std::string header = read_range(file, header_at, header_at + header_bytes);
  std::smatch type, shape;
  if (!std::regex_search(header, type, std::regex("'descr': *'<([ui][248])'")) ||
      !std::regex_search(header, shape, std::regex("'shape': *\\((\\d{1,18}),\\)")))
    throw refuse("holds another kind of array");
  InputFile input{.path = path, .kind = InputKind::ids, .begin = header_at + header_bytes, .end = 0};
  if (type[1] == "u2")
    input.id_type = DType::u16;
  else if (type[1] == "u4")
    input.id_type = DType::u32;
  else if (type[1] == "i4")
    input.id_type = DType::i32;
  else if (type[1] == "i8")
    input.id_type = DType::i64;
  else
    throw refuse("holds another kind of number");
  input.end = input.begin + std::stoull(shape[1]) * size_of(input.id_type);
  if (input.end > file.size())
    throw UserError("{} is cut short: it has {} bytes of {}: restore it or save it again", path, file.size(),
                    input.end);
  return input;
}

InputFile examine(const std::string& path, const std::string& token_type) {
  const std::string extension = fs::path(path).extension().string();
  if (extension == ".npy") return examine_npy(path);
  const std::uint64_t size = File::open_to_read(path).size();
  if (extension == ".jsonl") return {.path = path, .kind = InputKind::jsonl, .begin = 0, .end = size};
  if (extension != ".bin") return {.path = path, .kind = InputKind::text, .begin = 0, .end = size};
  if (token_type != "u16" && token_type != "u32")
    throw UserError("{} needs a type of tokens: give --token-type u16 or u32", path);
  const DType type = token_type == "u16" ? DType::u16 : DType::u32;
  if (size % size_of(type) != 0)
    throw UserError("{} has {} bytes, no whole number of {} tokens: correct --token-type or restore the file",
                    path, size, token_type);
  return {.path = path, .kind = InputKind::ids, .begin = 0, .end = size, .id_type = type};
}

std::vector<std::string> files_in(const std::string& folder) try {
  std::vector<std::string> files;
  for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator();
       ++entry) {
    const bool hidden = entry->path().filename().string().starts_with('.');
    if (hidden && entry->is_directory()) entry.disable_recursion_pending();
    if (!hidden && entry->is_regular_file()) files.push_back(entry->path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
} catch (const fs::filesystem_error& error) {
  throw UserError("cannot list {}: {}: check its permissions", folder, error.code().message());
}

}  // namespace

std::vector<InputFile> find_inputs(const std::vector<std::string>& names, const std::string& token_type) {
  std::vector<InputFile> inputs;
  for (const std::string& name : names) {
    std::error_code unreadable;  // is told when the file is opened
    const fs::file_status status = fs::status(name, unreadable);
    if (fs::is_directory(status)) {
      for (const std::string& path : files_in(name)) {
        InputFile input = examine(path, token_type);
        if (input.begin < input.end) inputs.push_back(std::move(input));
      }
      continue;
    }
    if (fs::exists(status) && !fs::is_regular_file(status))
      throw UserError("{} is neither a file nor a folder: save its contents as a file first", name);
    InputFile input = examine(name, token_type);
    if (input.begin == input.end) throw UserError("{} is empty: leave it out", name);
    inputs.push_back(std::move(input));
  }
  if (inputs.empty()) throw UserError("no files to read: name files, or folders that hold some");
  return inputs;
}

std::vector<InputFile> with_ends_held_out(const std::vector<InputFile>& texts, double share) {
  std::vector<InputFile> parts;
  for (const InputFile& text : texts) {
    const std::uint64_t cut = cut_before_end(text, share);
    for (const bool held_out : {false, true}) {
      InputFile part = text;
      (held_out ? part.begin : part.end) = cut;
      part.held_out = held_out;
      if (part.begin < part.end) parts.push_back(std::move(part));
    }
  }
  return parts;
}

Encoded encode(const InputBlock& block, const Tokenizer& tokenizer, DType token_type) {
  Encoded encoded;
  switch (block.file->kind) {
    case InputKind::text:
      encode_text(block, tokenizer, token_type, encoded);
      break;
    case InputKind::jsonl:
      encode_jsonl(block, tokenizer, token_type, encoded);
      break;
    case InputKind::ids:
      encode_ids(block, tokenizer, token_type, encoded);
      break;
  }
  return encoded;
}

}  // namespace muster
