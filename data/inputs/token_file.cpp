#include "data/inputs/token_file.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "data/inputs/encoding.hpp"
#include "data/inputs/token_ids.hpp"

namespace muster {
namespace {

// What stands behind "'NAME':" and spaces in the header of a .npy file, to its end; empty if there is none.
std::string_view npy_value(std::string_view header, std::string_view name) {
  const std::size_t at = header.find(name);
  if (at == std::string_view::npos) return {};
  header.remove_prefix(at + name.size());
  return header.substr(std::min(header.size(), header.find_first_not_of(' ')));
}

// Of "'<u2'": "u2".
std::string_view npy_type(std::string_view header) {
  const std::string_view value = npy_value(header, "'descr':");
  const bool integers =
      value.size() >= 5 && value[0] == '\'' && (value[1] == '<' || value[1] == '|') && value[4] == '\'';
  return integers ? value.substr(2, 2) : std::string_view();
}

// Of "(1000,)": 1000.
std::optional<std::uint64_t> npy_length(std::string_view header) {
  const std::string_view value = npy_value(header, "'shape':");
  constexpr std::size_t most_digits = 18;
  std::uint64_t length = 0;
  if (!value.starts_with('(')) return {};
  const char *begin = value.data() + 1, *end = value.data() + value.size();
  const auto [rest, error] = std::from_chars(begin, end, length);
  if (error != std::errc() || rest > begin + most_digits || !std::string_view(rest, end).starts_with(",)"))
    return {};
  return length;
}

}  // namespace

InputFile examine_npy(const std::string& path) {
  const File file = File::open_to_read(path);
  const auto refuse = [&](const std::string& what) {
    return UserError("{} {}: save a one-dimensional array of integers with numpy.save", path, what);
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
  InputFile input{.path = path, .kind = InputKind::ids, .begin = header_at + header_bytes, .end = 0};
  constexpr std::array types = {std::pair{"u1", IdType::u8},  std::pair{"i1", IdType::i8},
                                std::pair{"u2", IdType::u16}, std::pair{"i2", IdType::i16},
                                std::pair{"u4", IdType::u32}, std::pair{"i4", IdType::i32},
                                std::pair{"u8", IdType::u64}, std::pair{"i8", IdType::i64}};
  const std::string_view name = npy_type(header);
  const auto type =
      std::ranges::find(types, name, [](const auto& known) { return std::string_view(known.first); });
  const std::optional<std::uint64_t> length = npy_length(header);
  if (type == types.end() || !length) throw refuse("holds another kind of array");
  input.id_type = type->second;
  input.end = input.begin + *length * size_of(input.id_type);
  if (input.end > file.size())
    throw UserError("{} is cut short: it has {} bytes of {}: restore it or save it again", path, file.size(),
                    input.end);
  return input;
}

namespace {

constexpr std::uint64_t header_bytes = 1024;  // of every .bin that has one: 256 numbers of 32 bits

// What a header tells.
struct Header {
  const char* written_by;
  IdType type;
  std::uint64_t tokens;
  std::optional<std::uint32_t> vocabulary;
};

std::optional<Header> llm_c_header(const std::array<std::uint32_t, 256>& words, const std::string& path) {
  constexpr std::uint32_t gpt2 = 20240520, llama3 = 20240801;
  if (words[0] != gpt2 && words[0] != llama3) return {};
  const std::uint32_t version = words[0] == gpt2 ? 1 : 7;
  if (words[1] != version)
    throw UserError("{} has a header of llm.c of version {}, known is {}: write its tokens without a header",
                    path, words[1], version);
  return Header{"llm.c", words[0] == gpt2 ? IdType::u16 : IdType::u32, words[2], {}};
}

std::optional<Header> llm_q_header(const std::array<std::uint32_t, 256>& words, const std::string& path) {
  if (std::memcmp(words.data(), "BIN.TOK\n", 8) != 0) return {};
  const std::uint32_t version = words[2], token_bytes = words[3];
  if (version < 1 || version > 2 || token_bytes != 4)
    throw UserError(
        "{} has a header of LLM.Q of version {} with {} bytes a token, known are versions 1 and 2 with "
        "4: write its tokens without a header",
        path, version, token_bytes);
  if (version == 2 && words[6] != 0)
    throw UserError("{} holds a mask of LLM.Q, and muster trains on every token: write it without masks",
                    path);
  return Header{"LLM.Q", IdType::u32, words[4], version == 2 ? std::optional(words[5]) : std::nullopt};
}

std::optional<Header> header_of(const File& file) {
  if (file.size() < header_bytes) return {};
  std::array<std::uint32_t, 256> words{};
  file.read_exactly(std::as_writable_bytes(std::span(words)), 0);
  const auto header = llm_c_header(words, file.path());
  return header ? header : llm_q_header(words, file.path());
}

InputFile examine_with_header(const File& file, const Header& header, const std::string& token_type) {
  const std::string& path = file.path();
  if (!token_type.empty() && token_type != name_of(header.type))
    throw UserError("{} holds {} tokens by its header of {}: leave out --token-type {}", path,
                    name_of(header.type), header.written_by, token_type);
  const std::uint64_t end = header_bytes + header.tokens * size_of(header.type);
  if (end != file.size())
    throw UserError(
        "{} has {} bytes, and by its header of {} {} tokens in {} bytes: restore it or write it again", path,
        file.size(), header.written_by, header.tokens, end);
  return {.path = path,
          .kind = InputKind::ids,
          .begin = header_bytes,
          .end = end,
          .id_type = header.type,
          .vocabulary = header.vocabulary};
}

}  // namespace

InputFile examine_bin(const std::string& path, const std::string& token_type) {
  const File file = File::open_to_read(path);
  if (const auto header = header_of(file)) return examine_with_header(file, *header, token_type);
  if (token_type != "u16" && token_type != "u32")
    throw UserError("{} needs a type of tokens: give --token-type u16 or u32", path);
  const IdType type = token_type == "u16" ? IdType::u16 : IdType::u32;
  if (file.size() % size_of(type) != 0)
    throw UserError("{} has {} bytes, no whole number of {} tokens: correct --token-type or restore the file",
                    path, file.size(), token_type);
  return {.path = path, .kind = InputKind::ids, .begin = 0, .end = file.size(), .id_type = type};
}

}  // namespace muster
