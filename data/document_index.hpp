// Where the documents of a split end, found with one small read: the last end of every 128 documents is held
// in memory, the others are read when asked for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/memory.hpp"
#include "data/dataset.hpp"
#include "data/shard.hpp"

namespace muster {

class DocumentIndex {
 public:
  static constexpr std::uint64_t group = 128;

  // Reads the index of the shards; UserError if the ends of documents do not increase.
  DocumentIndex(const std::vector<Shard>& shards, MemoryAccount& account);
  // Bytes of its buffer for a split.
  static std::uint64_t bytes(const SplitInfo& split);

  // Appends to `ends` the document ends of a shard in (begin, end), in order.
  void ends_between(std::size_t shard, std::uint64_t begin, std::uint64_t end,
                    std::vector<std::uint64_t>& ends) const;

 private:
  const std::vector<Shard>* shards_;
  Buffer buffer_;
  std::vector<std::span<const std::int64_t>> last_ends_;  // of each group of each shard
};

}  // namespace muster
