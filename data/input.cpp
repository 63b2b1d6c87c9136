#include "data/input.hpp"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "core/error.hpp"
#include "core/file.hpp"
#include "data/inputs/encoding.hpp"
#include "data/inputs/json_lines.hpp"
#include "data/inputs/megatron.hpp"
#include "data/inputs/text_file.hpp"
#include "data/inputs/token_file.hpp"
#include "data/inputs/token_ids.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

// Of a compressed file: a.jsonl.gz is named as a.jsonl is.
fs::path without_suffix(const fs::path& path) {
  const std::string suffix = path.extension().string();
  return suffix == ".gz" || suffix == ".zst" ? fs::path(path).replace_extension() : path;
}

InputFile examine(const std::string& path, const std::string& token_type) {
  const std::string suffix = fs::path(path).extension().string();
  if (suffix == ".npy") return examine_npy(path);
  if (suffix == ".npz")
    throw UserError("{} is an archive of arrays: save the tokens as an array alone, .npy, with numpy.save",
                    path);
  if (suffix == ".bin" && MegatronIndex::is_one(MegatronIndex::beside(path)))
    return examine_megatron(path, token_type);
  if (suffix == ".bin") return examine_bin(path, token_type);
  const File file = File::open_to_read(path);
  const std::uint64_t size = file.size();
  std::string start = read_range(file, 0, std::min(size, std::uint64_t{4096}));
  const Compression compression = compression_of(path, start);
  if (compression != Compression::none) {
    start.resize(block_bytes);
    start.resize(Decompressor(path, compression).read(start));
  } else if (start.find_first_of("{[") != std::string::npos) {  // of plain text no more is read
    start = read_range(file, 0, std::min(size, block_bytes));
  }
  const fs::path name = compression == Compression::none ? fs::path(path) : without_suffix(path);
  const std::string extension = name.extension().string();
  if (extension == ".npy" || extension == ".bin")
    throw UserError("{} holds tokens and is compressed: decompress it", path);
  const bool lines = are_json_lines(path, extension, start);
  const InputKind kind = lines ? InputKind::json_lines : InputKind::text;
  return {.path = path, .kind = kind, .begin = 0, .end = size, .compression = compression};
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

// An index of Megatron is read with its .bin, and may be named in its place.
bool is_index(const std::string& path) {
  if (fs::path(path).extension() != ".idx" || !MegatronIndex::is_one(path)) return false;
  const std::string bin = fs::path(path).replace_extension(".bin").string();
  if (!fs::exists(bin)) throw UserError("{} is the index of {}, which is missing: put it there", path, bin);
  return true;
}

}  // namespace

std::vector<InputFile> find_inputs(const std::vector<std::string>& given, const std::string& token_type) {
  std::vector<InputFile> inputs;
  std::vector<std::string> names;
  for (const std::string& name : given) {
    const std::string bin = fs::path(name).replace_extension(".bin").string();
    if (!is_index(name))
      names.push_back(name);
    else if (std::ranges::find(given, bin) == given.end())
      names.push_back(bin);
  }
  for (const std::string& name : names) {
    std::error_code unreadable;  // is told when the file is opened
    const fs::file_status status = fs::status(name, unreadable);
    if (fs::is_directory(status)) {
      for (const std::string& path : files_in(name)) {
        if (is_index(path)) continue;
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

std::vector<InputFile> with_ends_held_out(const std::vector<InputFile>& files, double share) {
  std::vector<InputFile> parts;
  for (const InputFile& file : files) {
    if (file.compression != Compression::none) {
      parts.push_back(file);
      parts.back().held_out = false;
      continue;
    }
    const std::uint64_t cut =
        file.kind == InputKind::ids ? cut_ids_before_end(file, share) : cut_before_end(file, share);
    for (const bool held_out : {false, true}) {
      InputFile part = file;
      (held_out ? part.begin : part.end) = cut;
      part.held_out = held_out;
      if (part.begin < part.end) parts.push_back(std::move(part));
    }
  }
  return parts;
}

Encoded encode(const InputBlock& block, const Tokenizer& tokenizer, DType token_type, bool skip_bad_lines) {
  Encoded encoded;
  switch (block.file->kind) {
    case InputKind::text:
      encode_text(block, tokenizer, token_type, encoded);
      break;
    case InputKind::json_lines:
      encode_json_lines(block, tokenizer, token_type, encoded);
      if (!skip_bad_lines && !encoded.bad_lines.empty()) {
        const BadLine& line = encoded.bad_lines.front();
        throw UserError("{} {}: correct or remove the line, or give --skip-bad-lines",
                        name_of(*block.file, line), line.fault);
      }
      break;
    case InputKind::ids:
      encode_ids(block, tokenizer, token_type, encoded);
      break;
  }
  return encoded;
}

std::string name_of(const InputFile& file, const BadLine& line) {
  const std::uint64_t number =
      line.number > 0 ? line.number : line_at(File::open_to_read(file.path), line.begin);
  return fmt::format("{}:{}", file.path, number);
}

}  // namespace muster
