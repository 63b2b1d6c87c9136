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
  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t documents() const { return documents_; }

  // Tokens [begin, begin + out.size()). UserError naming file and offset if one lies outside the vocabulary.
  void read_tokens(std::uint64_t begin, std::span<std::int32_t> out) const;
  // Document ends [begin, begin + out.size()).
  void read_document_ends(std::uint64_t begin, std::span<std::int64_t> out) const;

 private:
  std::string path_;
  std::uint64_t tokens_ = 0, documents_ = 0;
  std::uint32_t vocabulary_ = 0;
  DType token_type_ = DType::u16;
  File file_;
  std::optional<std::uint64_t> tokens_at_, document_ends_at_;
  // Open only if something must be read through the library.
  H5File h5_;
  std::optional<H5Dataset> h5_tokens_, h5_document_ends_;
};

}  // namespace muster
