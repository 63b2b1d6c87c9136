// The hashes by which what is read of a shard is known to be what was written.
//
// A shard holds a hash of each block of its tokens and of its document ends: the low 32 bits of the XXH3 (64 bit) of the
// block's bytes, as they lie in the file. A block of tokens is 1,024 of them and the one that follows: so a sample, which
// is T + 1 tokens and starts at a multiple of T, is checked without reading more than itself wherever 1,024 divides T. A
// block of document ends is 32, which is what is read of them at once.
//
// They lie in memory while a split is read, 4 bytes for 1,024 tokens. A block is checked each time that it is read: pages
// leave the memory of the system and come from the disk again, and nobody tells.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/memory.hpp"

namespace muster {

class Shard;
struct SplitInfo;

inline constexpr std::uint64_t tokens_of_block = 1024;
inline constexpr std::uint64_t document_ends_of_block = 32;

std::uint32_t hash_of_block(std::span<const std::byte> bytes);
constexpr std::uint64_t blocks_of(std::uint64_t elements, std::uint64_t of_block) {
  return (elements + of_block - 1) / of_block;
}

// The hashes of all blocks, of `block` bytes, of what arrives in pieces; `shared` bytes after a block belong to it, too.
class BlockHasher {
 public:
  BlockHasher(std::uint64_t block, std::uint64_t shared) : block_(block), shared_(shared) {}
  void add(std::span<const std::byte> bytes);
  std::vector<std::uint32_t> finish();

 private:
  std::uint64_t block_, shared_;
  std::vector<std::byte> open_;  // of the block that is not full yet
  std::vector<std::uint32_t> hashes_;
};

// Those of a split's shards, in memory. A shard without hashes, or that is not to be checked, has none here.
class BlockHashes {
 public:
  BlockHashes() = default;
  // UserError naming the shard whose hashes are not those that dataset.json tells of.
  BlockHashes(const std::vector<Shard>& shards, const SplitInfo& split, bool documents,
              MemoryAccount& account);
  // Bytes of its buffer.
  static std::uint64_t bytes(const SplitInfo& split, bool documents);

  std::span<const std::uint32_t> of_tokens(std::size_t shard) const { return tokens_[shard]; }
  std::span<const std::uint32_t> of_document_ends(std::size_t shard) const { return document_ends_[shard]; }

 private:
  Buffer buffer_;
  std::vector<std::span<const std::uint32_t>> tokens_, document_ends_;  // of each shard
};

}  // namespace muster
