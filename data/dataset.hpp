// A dataset is a folder: dataset.json and the shards that it lists.
//
// dataset.json, written last:
//   {"format": 1, "tokenizer": {...}, "tokenizer_hash": "16 hex digits", "vocabulary": 257, "token_type": "u16",
//    "splits": {"train": {"text_bytes": N,
//                         "shards": [{"file": "train-00000.h5", "tokens": N, "documents": N, "bytes": N,
//                                     "xxh3": "16 hex digits"}, ...]},
//               "validation": ...}}
// "text_bytes" is the length of the raw text of the split (0: unknown), from which bits per byte follow.
//
// A shard: /tokens, u16 if the vocabulary is at most 65,536, else u32; /document_ends, i64, exclusive offsets into
// /tokens; attributes format_version, vocabulary, tokenizer_hash. A document never crosses a shard.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "data/shard.hpp"

namespace muster {

inline constexpr std::int64_t dataset_format = 1;

enum class Split : std::uint8_t { train, validation };
std::string_view name_of(Split split);

// How much of a dataset is checked when it is opened: sizes of files; contents of files too (by checksum);
// automatic: contents if the dataset is below 1 GiB.
enum class Verify : std::uint8_t { automatic, size, full };

struct ShardInfo {
  std::string file;  // within the dataset's folder
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
  std::uint64_t bytes = 0;  // of the file
  std::uint64_t hash = 0;   // of the file
};

struct SplitInfo {
  std::vector<ShardInfo> shards;
  std::uint64_t text_bytes = 0;

  std::uint64_t tokens() const;
  std::uint64_t documents() const;
};

struct DatasetInfo {
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

// dataset.json of a folder; UserError if it is missing, torn or of an unknown format.
DatasetInfo read_dataset_info(const std::string& folder);
void write_dataset_info(const std::string& folder, const DatasetInfo& info);

// A dataset whose shards are open and checked.
class Dataset {
 public:
  explicit Dataset(const std::string& folder, Verify verify = Verify::automatic);

  const std::string& folder() const { return folder_; }
  const DatasetInfo& info() const { return info_; }
  const std::vector<Shard>& shards(Split split) const { return split == Split::train ? train_ : validation_; }

 private:
  std::string folder_;
  DatasetInfo info_;
  std::vector<Shard> train_, validation_;
};

}  // namespace muster
