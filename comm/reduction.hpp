// The fixed binary tree over which gradients and losses are summed, so that the bits of a sum do not depend
// on how many ranks share the work. Pure functions: they say in which order to add; others move and add.
//
// The tree over n leaves is the complete binary tree over the next power of two whose missing leaves are
// skipped: a node without a right child is its left child. A subtree is named by its first leaf and its
// number of leaves, a power of two that divides `begin`. Invariant mode has a leaf for each shard, fast mode
// a leaf for each rank.
#pragma once

#include <span>
#include <vector>

namespace muster {

struct LeafRange {
  int begin = 0;
  int end = 0;
  bool operator==(const LeafRange&) const = default;
};

struct Subtree {
  int begin = 0;
  int size = 1;
  bool operator==(const Subtree&) const = default;
};

// operand[left] += operand[right]; the right operand is free afterwards.
struct Add {
  int left = 0;
  int right = 0;
  bool operator==(const Add&) const = default;
};

// The leaves that `rank` of `ranks` sums: contiguous, the first ranks take the remainder (8 over 3: 3, 3, 2).
LeafRange shards_of_rank(int leaves, int ranks, int rank);

// The maximal subtrees whose leaves all lie in [begin, end), in order. They cover it.
std::vector<Subtree> roots_of_range(int leaves, int begin, int end);

// One leaf's turn in a rank's sum: compute it into a buffer, then add buffers in this order.
struct LeafStep {
  int leaf = 0;
  int buffer = 0;
  std::vector<Add> adds;  // of buffers
};

// How a rank sums [begin, end) like a binary counter. When all steps are done, buffer i holds root i of
// roots_of_range(leaves, begin, end).
std::vector<LeafStep> accumulation_steps(int leaves, int begin, int end);

// How many buffers these steps use at most, the one being computed included: log2(end - begin) + 1 when
// the range is itself a subtree.
int buffers_needed(int leaves, int begin, int end);

// The adds that make the sum of the whole tree, left in operand 0, from the roots of all ranks in order.
// Operands are positions in `roots`.
std::vector<Add> combine_order(std::span<const Subtree> roots);

// The sum over the tree with a leaf for each value; 0 without any.
double tree_sum(std::span<const double> values);

}  // namespace muster
