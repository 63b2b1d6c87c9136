// One shard, open for reading: any range of its tokens and document ends.
//
// Read by pread where the elements lie in one plain piece (several hundred thousand windows a second), by the
// HDF5 library otherwise. Not mapped into memory: a mapped file kills the program when it is cut short.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/file.hpp"
#include "core/hdf5.hpp"

namespace muster {

struct DatasetInfo;
struct ShardInfo;

class Shard {
 public:
  // Checks the file against what dataset.json says of it; UserError naming the file otherwise.
  Shard(const std::string& folder, const DatasetInfo& dataset, const ShardInfo& info, bool verify_contents);

  const std::string& path() const { return path_; }
  std::uint64_t tokens() const { return tokens_.length; }
  std::uint64_t documents() const { return document_ends_.length; }

  // Tokens [begin, begin + out.size()). UserError naming file and offset if one lies outside the vocabulary, or if a block
  // that holds some of them has not its hash. `hashes`: of all blocks (data/block_hashes.hpp); none: nothing is compared.
  void read_tokens(std::uint64_t begin, std::span<std::int32_t> out,
                   std::span<const std::uint32_t> hashes = {}) const;
  // Document ends [begin, begin + out.size()), compared in the same way; whole blocks then.
  void read_document_ends(std::uint64_t begin, std::span<std::int64_t> out,
                          std::span<const std::uint32_t> hashes = {}) const;

  // Whether its blocks have hashes, and they are to be compared.
  bool has_block_hashes() const { return token_hashes_.length > 0; }
  // All of them; UserError if they are not those that dataset.json tells of.
  void read_token_hashes(std::span<std::uint32_t> out) const;
  void read_document_end_hashes(std::span<std::uint32_t> out) const;

 private:
  // A list of numbers in the file.
  struct Column {
    std::uint64_t length = 0;
    std::optional<std::uint64_t> at;  // where it lies, if it lies there in one plain piece; otherwise
    std::optional<H5Dataset> values;
  };

  Column open(const H5File& file, const char* name, DType type, std::uint64_t length) const;
  template <class T>
  void read(const Column& column, std::uint64_t begin, std::span<T> out) const;
  template <class Stored>
  std::uint32_t read_tokens_as(std::uint64_t begin, std::span<std::int32_t> out,
                               std::span<const std::uint32_t> hashes) const;
  void read_hashes(const Column& column, const char* name, std::uint64_t wanted,
                   std::span<std::uint32_t> out) const;

  std::string path_;
  std::uint32_t vocabulary_ = 0;
  DType token_type_ = DType::u16;
  std::uint64_t hash_of_token_hashes_ = 0, hash_of_document_end_hashes_ = 0;
  File file_;
  H5File h5_;  // open only if something must be read through the library
  Column tokens_, document_ends_, token_hashes_, document_end_hashes_;
};

}  // namespace muster
