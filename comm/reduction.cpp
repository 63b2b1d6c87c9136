#include "comm/reduction.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/error.hpp"

namespace muster {
namespace {

// The subtrees summed so far, a stack with the sizes of a binary counter's digits.
class OpenSubtrees {
 public:
  int count() const { return static_cast<int>(stack_.size()); }

  // Puts a subtree on top and joins siblings; returns the adds by depth in the stack.
  std::vector<Add> push(Subtree subtree) {
    stack_.push_back(subtree);
    std::vector<Add> adds;
    while (count() > 1 && siblings(stack_[stack_.size() - 2], stack_.back())) {
      adds.push_back({count() - 2, count() - 1});
      stack_.pop_back();
      stack_.back().size *= 2;
    }
    return adds;
  }

 private:
  static bool siblings(const Subtree& left, const Subtree& right) {
    return left.size == right.size && left.begin % (2 * left.size) == 0 &&
           right.begin == left.begin + left.size;
  }
  std::vector<Subtree> stack_;
};

void check_range(int leaves, int begin, int end) {
  check(0 <= begin && begin <= end && end <= leaves, "a range of leaves outside the tree");
}

}  // namespace

LeafRange shards_of_rank(int leaves, int ranks, int rank) {
  check(leaves >= 0 && ranks > 0 && 0 <= rank && rank < ranks, "a rank outside its job");
  const int share = leaves / ranks, larger = leaves % ranks;
  const int begin = rank * share + std::min(rank, larger);
  return {begin, begin + share + (rank < larger ? 1 : 0)};
}

std::vector<Subtree> roots_of_range(int leaves, int begin, int end) {
  check_range(leaves, begin, end);
  std::vector<Subtree> roots;
  while (begin < end) {
    int size = 1;
    while (begin % (2 * size) == 0 && 2 * size <= end - begin) size *= 2;
    roots.push_back({begin, size});
    begin += size;
  }
  return roots;
}

std::vector<LeafStep> accumulation_steps(int leaves, int begin, int end) {
  check_range(leaves, begin, end);
  std::vector<LeafStep> steps;
  OpenSubtrees open;
  for (int leaf = begin; leaf < end; ++leaf) {
    const int buffer = open.count();
    steps.push_back({leaf, buffer, open.push({leaf, 1})});
  }
  return steps;
}

int buffers_needed(int leaves, int begin, int end) {
  int most = 0;
  for (const LeafStep& step : accumulation_steps(leaves, begin, end)) most = std::max(most, step.buffer + 1);
  return most;
}

std::vector<Add> combine_order(std::span<const Subtree> roots) {
  std::vector<Add> order;
  std::vector<int> operand;  // of each open subtree
  OpenSubtrees open;
  for (std::size_t i = 0; i < roots.size(); ++i) {
    operand.push_back(static_cast<int>(i));
    for (const Add& add : open.push(roots[i])) {
      order.push_back({operand[static_cast<std::size_t>(add.left)], operand.back()});
      operand.pop_back();
    }
  }
  // What is still open lacks its right siblings, because leaves are missing: it joins from the right.
  for (; operand.size() > 1; operand.pop_back())
    order.push_back({operand[operand.size() - 2], operand.back()});
  return order;
}

double tree_sum(std::span<const double> values) {
  std::array<double, 65> open;
  std::size_t count = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    double sum = values[i];
    for (int joins = std::countr_one(static_cast<std::uint64_t>(i)); joins > 0; --joins)
      sum = open[--count] + sum;
    open[count++] = sum;
  }
  if (count == 0) return 0;
  double sum = open[--count];
  while (count > 0) sum = open[--count] + sum;
  return sum;
}

}  // namespace muster
