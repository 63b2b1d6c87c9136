#include "data/document_index.hpp"

#include <algorithm>
#include <array>

#include "core/error.hpp"

namespace muster {
namespace {

UserError disorder(const Shard& shard) {
  return UserError("the document ends of {} do not increase: restore it or prepare the dataset again",
                   shard.path());
}

}  // namespace

std::uint64_t DocumentIndex::bytes(const SplitInfo& split) {
  std::uint64_t entries = 0;
  for (const ShardInfo& shard : split.shards) entries += blocks_of(shard.documents, group);
  return entries * sizeof(std::int64_t);
}

DocumentIndex::DocumentIndex(const std::vector<Shard>& shards, const BlockHashes& hashes,
                             MemoryAccount& account)
    : shards_(&shards) {
  std::uint64_t entries = 0;
  for (const Shard& shard : shards) entries += blocks_of(shard.documents(), group);
  buffer_ = Buffer(account, MemoryKind::data, entries * sizeof(std::int64_t));
  std::span<std::int64_t> room = buffer_.as<std::int64_t>();
  std::array<std::int64_t, 64 * group> read;
  for (std::size_t s = 0; s < shards.size(); ++s) {
    const Shard& shard = shards[s];
    const std::span<std::int64_t> ends = room.first(blocks_of(shard.documents(), group));
    room = room.subspan(ends.size());
    std::int64_t before = 0;
    for (std::uint64_t document = 0; document < shard.documents();) {
      const auto some =
          std::span(read).first(std::min<std::uint64_t>(read.size(), shard.documents() - document));
      shard.read_document_ends(document, some, hashes.of_document_ends(s));
      for (const std::int64_t end : some) {
        if (end <= before) throw disorder(shard);
        before = end;
        ends[document++ / group] = end;  // the last of a group stays
      }
    }
    last_ends_.emplace_back(ends);
  }
}

void DocumentIndex::ends_between(std::size_t shard_index, std::uint64_t begin, std::uint64_t end,
                                 const BlockHashes& hashes, std::vector<std::uint64_t>& ends) const {
  const Shard& shard = (*shards_)[shard_index];
  const std::span<const std::int64_t> last_ends = last_ends_[shard_index];
  const auto first = std::upper_bound(last_ends.begin(), last_ends.end(), static_cast<std::int64_t>(begin));
  std::array<std::int64_t, group> read;
  for (auto at = static_cast<std::uint64_t>(first - last_ends.begin()); at < last_ends.size(); ++at) {
    const std::uint64_t document = at * group;
    const auto some = std::span(read).first(std::min(group, shard.documents() - document));
    shard.read_document_ends(document, some, hashes.of_document_ends(shard_index));
    std::int64_t before = at == 0 ? 0 : last_ends[at - 1];
    for (const std::int64_t value : some) {
      if (value <= before) throw disorder(shard);
      before = value;
      if (static_cast<std::uint64_t>(value) >= end) return;
      if (static_cast<std::uint64_t>(value) > begin) ends.push_back(static_cast<std::uint64_t>(value));
    }
  }
}

}  // namespace muster
