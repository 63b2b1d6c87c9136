// Where the documents of a split end, found with one small read: the last end of every 32 documents, a block of them, is
// held in memory, the others are read when asked for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/memory.hpp"
#include "data/block_hashes.hpp"
#include "data/dataset.hpp"
#include "data/shard.hpp"

namespace muster {

class DocumentIndex {
 public:
  // Reads all ends of the shards once; UserError if they do not increase. What is read, now and later, is compared with the
  // hashes of its blocks.
  DocumentIndex(const std::vector<Shard>& shards, const BlockHashes& hashes, MemoryAccount& account);
  // Bytes of its buffer for a split.
  static std::uint64_t bytes(const SplitInfo& split);

  // Appends to `ends` the document ends of a shard in (begin, end), in order. `hashes` are those it was made with.
  void ends_between(std::size_t shard, std::uint64_t begin, std::uint64_t end, const BlockHashes& hashes,
                    std::vector<std::uint64_t>& ends) const;

 private:
  static constexpr std::uint64_t group = document_ends_of_block;

  const std::vector<Shard>* shards_;
  Buffer buffer_;
  std::vector<std::span<const std::int64_t>> last_ends_;  // of each group of each shard
};

}  // namespace muster
