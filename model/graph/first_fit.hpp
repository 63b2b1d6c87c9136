// Where a block of memory fits first beside those already placed that live when it does.
//
// They lie in a search tree by offset, and each subtree knows what holds for all of its blocks: when they live, and how
// wide the gaps between them are at most. So a block is compared with whole subtrees, and the time for thousands of like
// layers grows with their number and not with its square.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "model/graph/arena.hpp"

namespace muster {

class FirstFit {
 public:
  // Places the block at the lowest offset where it overlaps no other that lives at one of its steps.
  std::uint64_t place(const Block& block);

 private:
  using Index = std::ptrdiff_t;
  static constexpr Index none = -1;

  // What holds for some blocks that follow one another by offset.
  struct Summary {
    std::uint64_t begin = 0, end = 0;  // of the first, and of the one that reaches farthest
    std::uint64_t widest = 0;          // no gap between them is wider
    std::int32_t least_first = 0, most_first = 0, least_last = 0, most_last = 0;
  };
  struct Node {
    Summary block, subtree;
    std::uint32_t priority = 0;  // no child has a higher one; drawn, which keeps the tree shallow
    Index left = none, right = none;
  };
  enum class Meeting { none, in_the_way, beyond, of_some };

  static Summary joined(const Summary& lower, const Summary& upper);
  static Meeting meet(const Summary& placed, const Block& block, std::uint64_t at);
  bool find(Index tree, const Block& block, std::uint64_t& at) const;
  Index insert(Index tree, Index node);
  std::pair<Index, Index> split(Index tree, std::uint64_t offset);
  void summarize(Node& root) const;
  Node& node(Index index) { return nodes_[static_cast<std::size_t>(index)]; }
  const Node& node(Index index) const { return nodes_[static_cast<std::size_t>(index)]; }

  std::vector<Node> nodes_;
  Index root_ = none;
  std::minstd_rand draw_;
};

}  // namespace muster
