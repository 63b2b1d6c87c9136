#include "model/graph/first_fit.hpp"

#include <algorithm>
#include <tuple>

namespace muster {

std::uint64_t FirstFit::place(const Block& block) {
  std::uint64_t at = 0;
  find(root_, block, at);
  const Summary placed{at, at + block.bytes, 0, block.first, block.first, block.last, block.last};
  nodes_.push_back({placed, placed, static_cast<std::uint32_t>(draw_())});
  root_ = insert(root_, static_cast<Index>(nodes_.size()) - 1);
  return at;
}

// How blocks stand to another that shall lie at `at` or above.
FirstFit::Meeting FirstFit::meet(const Summary& placed, const Block& block, std::uint64_t at) {
  if (placed.most_last < block.first || block.last < placed.least_first || placed.end <= at)
    return Meeting::none;
  if (placed.begin >= at + block.bytes) return Meeting::beyond;
  const bool all_live = placed.most_first <= block.last && block.first <= placed.least_last;
  return all_live && placed.widest < block.bytes ? Meeting::in_the_way : Meeting::of_some;
}

// Moves `at` above what is in the way; true once there is a gap below what follows.
bool FirstFit::find(Index tree, const Block& block, std::uint64_t& at) const {
  if (tree == none) return false;
  const Node& root = node(tree);
  switch (meet(root.subtree, block, at)) {
    case Meeting::none:
      return false;
    case Meeting::beyond:
      return true;
    case Meeting::in_the_way:
      at = root.subtree.end;
      return false;
    case Meeting::of_some:
      break;
  }
  if (find(root.left, block, at)) return true;
  const Meeting own = meet(root.block, block, at);
  if (own == Meeting::beyond) return true;
  if (own == Meeting::in_the_way) at = root.block.end;
  return find(root.right, block, at);
}

FirstFit::Summary FirstFit::joined(const Summary& lower, const Summary& upper) {
  const std::uint64_t between = upper.begin - std::min(upper.begin, lower.end);
  return {lower.begin,
          std::max(lower.end, upper.end),
          std::max({lower.widest, between, upper.widest}),
          std::min(lower.least_first, upper.least_first),
          std::max(lower.most_first, upper.most_first),
          std::min(lower.least_last, upper.least_last),
          std::max(lower.most_last, upper.most_last)};
}

void FirstFit::summarize(Node& root) const {
  root.subtree = root.block;
  if (root.left != none) root.subtree = joined(node(root.left).subtree, root.subtree);
  if (root.right != none) root.subtree = joined(root.subtree, node(root.right).subtree);
}

FirstFit::Index FirstFit::insert(Index tree, Index added) {
  if (tree == none) return added;
  Node& root = node(tree);
  if (root.priority < node(added).priority) {
    std::tie(node(added).left, node(added).right) = split(tree, node(added).block.begin);
    summarize(node(added));
    return added;
  }
  Index& child = node(added).block.begin < root.block.begin ? root.left : root.right;
  child = insert(child, added);
  summarize(root);
  return tree;
}

// The blocks at `offset` and below, and those above.
std::pair<FirstFit::Index, FirstFit::Index> FirstFit::split(Index tree, std::uint64_t offset) {
  if (tree == none) return {none, none};
  Node& root = node(tree);
  std::pair<Index, Index> halves{tree, tree};
  if (offset < root.block.begin)
    std::tie(halves.first, root.left) = split(root.left, offset);
  else
    std::tie(root.right, halves.second) = split(root.right, offset);
  summarize(root);
  return halves;
}

}  // namespace muster
