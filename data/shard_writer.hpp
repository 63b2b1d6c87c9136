// Writes the shards of one split, one document after the other.
//
// The length of a shard is known only when it is full, and a contiguous dataset needs it first: so tokens are
// spooled into a file beside it. A shard ends before the document that would make it too long; a document
// longer than that has a shard of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.hpp"
#include "core/hdf5.hpp"
#include "data/block_hashes.hpp"
#include "data/dataset.hpp"

namespace muster {

class ShardWriter {
 public:
  ShardWriter(std::string folder, Split split, const DatasetInfo& dataset, std::uint64_t shard_tokens);

  // More tokens, of the dataset's token type, of the document that is being written.
  void append(std::span<const std::byte> tokens);
  void end_document();
  // Writes the last shard. Nothing of a spool is left.
  std::vector<ShardInfo> finish();

 private:
  // An append-only file with a buffer in front, removed when it goes out of scope.
  class Spool {
   public:
    explicit Spool(const std::string& path);
    Spool(Spool&& other) noexcept = default;
    ~Spool();
    std::uint64_t size() const { return size_; }
    void append(std::span<const std::byte> bytes);
    // Calls take(bytes) for the bytes [begin, end) in pieces.
    template <class Take>
    void read(std::uint64_t begin, std::uint64_t end, Take&& take);

   private:
    void flush();
    File file_;
    std::vector<std::byte> buffer_;
    std::uint64_t size_ = 0;
  };

  void open();
  void close_shard();
  // Into a dataset of the file; returns the hashes of its blocks.
  template <class T>
  static std::vector<std::uint32_t> copy(Spool& spool, std::uint64_t bytes, H5Dataset dataset,
                                         BlockHasher hasher);
  std::string path(const std::string& suffix) const;

  std::string folder_;
  Split split_;
  const DatasetInfo* dataset_;
  std::uint64_t shard_bytes_;
  std::size_t token_bytes_;
  std::optional<Spool> tokens_, ends_;
  std::uint64_t documents_end_ = 0;  // bytes of the whole documents in tokens_
  std::vector<ShardInfo> shards_;
};

}  // namespace muster
