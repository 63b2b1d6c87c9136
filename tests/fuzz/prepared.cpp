#include "tests/fuzz/prepared.hpp"

#include <algorithm>
#include <vector>

#include "data/dataset.hpp"
#include "data/input.hpp"
#include "data/input_blocks.hpp"
#include "data/inputs/token_ids.hpp"
#include "tests/fuzz/target.hpp"

namespace muster::fuzz {
namespace {

struct Document {
  std::uint64_t tokens = 0, text_bytes = 0, hash = 0;
  bool operator==(const Document&) const = default;
};

struct Documents {
  std::vector<std::byte> tokens;
  std::vector<Document> documents;
  bool operator==(const Documents&) const = default;

  void add(const Encoded& encoded) {
    tokens.insert(tokens.end(), encoded.tokens.begin(), encoded.tokens.end());
    for (const Piece& piece : encoded.pieces) {
      if (piece.first) documents.push_back({.hash = piece.hash});
      check(!documents.empty(), "a piece of a document that has no start");
      documents.back().tokens += piece.tokens;
      documents.back().text_bytes += piece.text_bytes;
    }
  }
};

Documents in_blocks(const InputFile& file, const std::vector<std::uint64_t>& borders,
                    const Tokenizer& tokenizer) {
  Documents documents;
  for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
    const InputBlock block{.file = &file,
                           .begin = borders[i],
                           .end = borders[i + 1],
                           .last = borders[i + 1] == file.end,
                           .file_bytes = borders[i + 1] - borders[i]};
    documents.add(encode(block, tokenizer, DatasetInfo::token_type_for(tokenizer.vocabulary()), true));
  }
  // Of text it is that of the first block, which is never as short as those here.
  if (file.kind == InputKind::text)
    for (Document& document : documents.documents) document.hash = 0;
  return documents;
}

// Of a compressed file, which may be much larger than what the fuzzer made, nothing is kept.
void read_compressed(const std::vector<InputFile>& files, const Tokenizer& tokenizer) {
  InputBlocks blocks(files);
  for (auto some = blocks.next(block_bytes); !some.empty(); some = blocks.next(block_bytes))
    for (const InputBlock& block : some)
      encode(block, tokenizer, DatasetInfo::token_type_for(tokenizer.vocabulary()), true);
}

}  // namespace

void prepare_file(const std::string& path, const Tokenizer& tokenizer, std::uint64_t cut,
                  const std::string& token_type) {
  const std::vector<InputFile> files = find_inputs({path}, token_type);
  const InputFile& file = files.front();
  if (file.compression != Compression::none) return read_compressed(files, tokenizer);
  const Documents whole = in_blocks(file, {file.begin, file.end}, tokenizer);

  const std::uint64_t step = file.kind == InputKind::ids ? size_of(file.id_type) : 1;
  const std::uint64_t border = file.begin + cut % ((file.end - file.begin) / step + 1) * step;
  if (border == file.begin || border == file.end) return;
  try {
    check(in_blocks(file, {file.begin, border, file.end}, tokenizer) == whole,
          "documents depend on where blocks end");
  } catch (const UserError& error) {
    throw Defect(std::string("refused in two blocks, not in one: ") + error.what());
  }
  for (const InputFile& part : with_ends_held_out(files, 0.5))
    in_blocks(part, {part.begin, part.end}, tokenizer);
}

}  // namespace muster::fuzz
