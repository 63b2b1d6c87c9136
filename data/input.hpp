// What prepare reads: files of text, JSON lines or tokens, cut into blocks that are encoded independently of
// each other, each in bounded memory.
//
// A block is a range of 1 MiB of a file. It yields the pieces of documents that lie in it; a line of JSON,
// and what must be known of a document at its start, belongs to the block where it starts. So the pieces, put
// together in the order of blocks, depend neither on threads nor on where blocks end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "data/inputs/compressed.hpp"
#include "data/tokenizer.hpp"

namespace muster {

enum class InputKind : std::uint8_t {
  text,        // a file, or the part of one that is given, is one document
  json_lines,  // a line is one document, its field "text"
  ids,         // tokens made elsewhere, .npy or .bin; documents end with the end token if there is one
};

// How a token is stored in a file made elsewhere, little-endian.
enum class IdType : std::uint8_t { u8, i8, u16, i16, u32, i32, u64, i64 };

struct InputFile {
  std::string path;
  InputKind kind = InputKind::text;
  std::uint64_t begin = 0, end = 0;              // of its contents, in bytes
  IdType id_type = IdType::u16;                  // of ids
  std::optional<std::uint32_t> vocabulary = {};  // of ids, where the file tells
  std::string index = {};  // of ids: tells where documents end (data/inputs/megatron.hpp); may be empty
  Compression compression = Compression::none;  // of text and lines; `end` is the size of the file then
  std::optional<bool> held_out = {};            // else the hash of each document decides
};

// The files named, and those in folders named, in a fixed order: as given, and by name within a folder.
// Hidden and empty files in folders are passed over. `token_type` (u16 or u32) is that of .bin files that do
// not tell it themselves; may be empty without any.
std::vector<InputFile> find_inputs(const std::vector<std::string>& names, const std::string& token_type);

// Each file of one document as two: the last `share` of it is held out, of text from the start of a line. Compressed
// files, whose length is not known, stay whole and are not.
std::vector<InputFile> with_ends_held_out(const std::vector<InputFile>& files, double share);

struct InputBlock {
  const InputFile* file = nullptr;
  std::uint64_t begin = 0, end = 0;  // in bytes of the file, or of what is in it where it is compressed
  bool last = false;                 // of its file
  std::uint64_t file_bytes = 0;      // of the file that were read for it, to tell progress by
  // Of a compressed file:
  std::optional<std::string> contents = {};
  std::uint64_t first_line = 1;
};
inline constexpr std::uint64_t block_bytes = std::uint64_t{1} << 20;

// A run of tokens of one document.
struct Piece {
  std::uint64_t tokens = 0;
  std::uint64_t text_bytes = 0;
  bool first = false, last = false;  // of its document
  // Of the first piece: the hash of the document's first 64 KiB of text (or 65,536 ids). It does not depend
  // on the tokenizer, so that datasets made with several hold out the same documents.
  std::uint64_t hash = 0;
};

// A line that holds no document, and why: what comes after its name in a message.
struct BadLine {
  std::uint64_t begin = 0;  // in bytes of the file
  std::string fault;
  std::uint64_t number = 0;  // of the line, from 1; 0: to be counted
};

struct Encoded {
  std::vector<std::byte> tokens;  // of the dataset's token type
  std::vector<Piece> pieces;
  std::vector<BadLine> bad_lines;  // passed over
};

// Bad lines are passed over if `skip_bad_lines`; else the first is a UserError.
Encoded encode(const InputBlock& block, const Tokenizer& tokenizer, DType token_type,
               bool skip_bad_lines = false);

// What a message calls the line: the file and the line's number.
std::string name_of(const InputFile& file, const BadLine& line);

}  // namespace muster
