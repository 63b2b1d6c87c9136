#include "data/block_hashes.hpp"

#include <algorithm>
#include <utility>

#include "core/hash.hpp"
#include "data/dataset.hpp"
#include "data/shard.hpp"

namespace muster {

std::uint32_t hash_of_block(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(hash_bytes(bytes));
}

void BlockHasher::add(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t taken = std::min<std::size_t>(block_ + shared_ - open_.size(), bytes.size());
    open_.insert(open_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
    bytes = bytes.subspan(taken);
    if (open_.size() < block_ + shared_) return;
    hashes_.push_back(hash_of_block(open_));
    open_.erase(open_.begin(), open_.begin() + static_cast<std::ptrdiff_t>(block_));
  }
}

std::vector<std::uint32_t> BlockHasher::finish() {
  if (!open_.empty()) hashes_.push_back(hash_of_block(open_));
  open_.clear();
  return std::exchange(hashes_, {});
}

std::uint64_t BlockHashes::bytes(const SplitInfo& split, bool documents) {
  std::uint64_t hashes = 0;
  for (const ShardInfo& shard : split.shards) {
    if (!shard.block_hashes) continue;
    hashes += blocks_of(shard.tokens, tokens_of_block);
    if (documents) hashes += blocks_of(shard.documents, document_ends_of_block);
  }
  return hashes * sizeof(std::uint32_t);
}

BlockHashes::BlockHashes(const std::vector<Shard>& shards, const SplitInfo& split, bool documents,
                         MemoryAccount& account)
    : buffer_(account, MemoryKind::data, bytes(split, documents)) {
  std::span<std::uint32_t> room = buffer_.as<std::uint32_t>();
  const auto take = [&](const Shard& shard, bool wanted, std::uint64_t elements, std::uint64_t of_block,
                        void (Shard::*read)(std::span<std::uint32_t>) const) {
    const std::span<std::uint32_t> hashes = room.first(wanted ? blocks_of(elements, of_block) : 0);
    room = room.subspan(hashes.size());
    if (!hashes.empty()) (shard.*read)(hashes);
    return std::span<const std::uint32_t>(hashes);
  };
  for (const Shard& shard : shards) {
    const bool checked = shard.has_block_hashes();
    tokens_.push_back(take(shard, checked, shard.tokens(), tokens_of_block, &Shard::read_token_hashes));
    document_ends_.push_back(take(shard, checked && documents, shard.documents(), document_ends_of_block,
                                  &Shard::read_document_end_hashes));
  }
}

}  // namespace muster
