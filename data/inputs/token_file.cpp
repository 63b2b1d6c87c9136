#include "data/inputs/token_file.hpp"

#include <regex>

#include "core/error.hpp"
#include "data/inputs/encoding.hpp"

namespace muster {

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

InputFile examine_bin(const std::string& path, const std::string& token_type) {
  if (token_type != "u16" && token_type != "u32")
    throw UserError("{} needs a type of tokens: give --token-type u16 or u32", path);
  const DType type = token_type == "u16" ? DType::u16 : DType::u32;
  const std::uint64_t size = File::open_to_read(path).size();
  if (size % size_of(type) != 0)
    throw UserError("{} has {} bytes, no whole number of {} tokens: correct --token-type or restore the file",
                    path, size, token_type);
  return {.path = path, .kind = InputKind::ids, .begin = 0, .end = size, .id_type = type};
}

}  // namespace muster
