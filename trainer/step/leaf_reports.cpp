#include "trainer/step/leaf_reports.hpp"

#include <cstring>
#include <span>

#include "comm/reduction.hpp"

namespace muster {
namespace {

struct Flags {
  std::int64_t stop = 0;
  std::int64_t failed = 0;
};

template <class T>
T read_as(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

}  // namespace

std::uint64_t LeafReports::bytes(LeafRange leaves) {
  return sizeof(Flags) + static_cast<std::uint64_t>(leaves.end - leaves.begin) * sizeof(Leaf);
}

LeafReports::LeafReports(const RunPlan& plan) : rank_(plan.rank) {
  std::size_t end = 0;
  for (const LeafRange& leaves : plan.leaves) {
    begin_.push_back(end);
    end += bytes(leaves);
  }
  begin_.push_back(end);
  bytes_.resize(end);
}

LeafReports::Summary LeafReports::gather(Communicator& comm, const std::vector<Leaf>& leaves, bool stop,
                                         bool failed) {
  std::byte* mine = bytes_.data() + begin_[static_cast<std::size_t>(rank_)];
  const Flags flags{stop, failed};
  std::memcpy(mine, &flags, sizeof(flags));
  std::memcpy(mine + sizeof(flags), leaves.data(), leaves.size() * sizeof(Leaf));

  std::vector<std::span<std::byte>> pieces;
  for (std::size_t r = 0; r + 1 < begin_.size(); ++r)
    pieces.push_back(std::span(bytes_).subspan(begin_[r], begin_[r + 1] - begin_[r]));
  comm.all_gather(pieces, "losses and signals").wait();

  Summary summary;
  std::vector<double> losses;
  for (const std::span<std::byte> piece : pieces) {
    const auto rank = read_as<Flags>(piece.data());
    summary.stop |= rank.stop != 0;
    summary.failed |= rank.failed != 0;
    for (std::size_t at = sizeof(Flags); at < piece.size(); at += sizeof(Leaf)) {
      const auto leaf = read_as<Leaf>(piece.data() + at);
      losses.push_back(leaf.loss);
      summary.targets += leaf.targets;
    }
  }
  summary.loss = tree_sum(losses);
  return summary;
}

}  // namespace muster
