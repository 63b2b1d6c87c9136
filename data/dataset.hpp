// A dataset is a folder: dataset.json and the shards that it lists.
//
// dataset.json, written last; it ends with a hash of itself:
//   {"format": 2, "tokenizer": {...}, "tokenizer_hash": "16 hex digits", "vocabulary": 257, "token_type": "u16",
//    "splits": {"train": {"text_bytes": N,
//                         "shards": [{"file": "train-00000.h5", "tokens": N, "documents": N, "bytes": N,
//                                     "xxh3": "16 hex digits", "token_hashes": "16 hex digits",
//                                     "document_end_hashes": "16 hex digits"}, ...]},
//               "validation": ...},
//    "xxh3": "16 hex digits"}
// "text_bytes" is the length of the raw text of the split (0: unknown), from which bits per byte follow.
//
// A shard: /tokens, u16 if the vocabulary is at most 65,536, else u32; /document_ends, i64, exclusive offsets into
// /tokens; /token_hashes and /document_end_hashes, u32, of their blocks (data/block_hashes.hpp), whose own hashes are in
// dataset.json; attributes format_version, vocabulary, tokenizer_hash. A document never crosses a shard.
//
// Format 1 had no hashes of blocks, and dataset.json no hash of itself. It is read and no longer written.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "data/shard.hpp"

namespace muster {

inline constexpr std::int64_t dataset_format = 2;

enum class Split : std::uint8_t { train, validation };
std::string_view name_of(Split split);

// What is checked of a dataset. When it is opened: sizes of files; contents of files too (full); automatic: contents if
// the dataset is below 1 GiB. What is read later: by the hashes of blocks, unless only sizes are to be checked.
enum class Verify : std::uint8_t { automatic, size, full };

struct ShardInfo {
  std::string file;  // within the dataset's folder
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
  std::uint64_t bytes = 0;  // of the file
  std::uint64_t hash = 0;   // of the file
  // Hashes over the hashes of its blocks. Nothing: it has none, or they are not to be compared.
  struct BlockHashes {
    std::uint64_t of_tokens = 0, of_document_ends = 0;
  };
  std::optional<BlockHashes> block_hashes = {};
};

struct SplitInfo {
  std::vector<ShardInfo> shards;
  std::uint64_t text_bytes = 0;

  std::uint64_t tokens() const;
  std::uint64_t documents() const;
};

struct DatasetInfo {
  std::int64_t format = dataset_format;
  std::string tokenizer;  // its description
  std::uint64_t tokenizer_hash = 0;
  std::uint32_t vocabulary = 0;
  SplitInfo train, validation;

  const SplitInfo& split(Split which) const { return which == Split::train ? train : validation; }
  DType token_type() const { return token_type_for(vocabulary); }
  static DType token_type_for(std::uint32_t vocabulary) {
    return vocabulary <= 65536 ? DType::u16 : DType::u32;
  }
};

// dataset.json of a folder; UserError if it is missing, torn, altered or of an unknown format.
DatasetInfo read_dataset_info(const std::string& folder);
void write_dataset_info(const std::string& folder, const DatasetInfo& info);

// A dataset whose shards are open and checked.
class Dataset {
 public:
  explicit Dataset(const std::string& folder, Verify verify = Verify::automatic);

  const std::string& folder() const { return folder_; }
  const DatasetInfo& info() const { return info_; }
  const std::vector<Shard>& shards(Split split) const { return split == Split::train ? train_ : validation_; }
  // How what is read from it is known to be what was written, as a sentence that begins with "its".
  std::string describe_checks() const;

 private:
  std::string folder_;
  DatasetInfo info_;
  Verify verify_;
  bool contents_ = false;  // of its files were checked
  std::vector<Shard> train_, validation_;
};

}  // namespace muster
