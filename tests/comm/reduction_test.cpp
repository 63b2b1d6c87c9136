#include "comm/reduction.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <gtest/gtest.h>
#include <vector>

#include "core/philox.hpp"

namespace muster {
namespace {

// Signed values over 60 powers of two, so that any other order of adding gives other bits.
std::vector<float> wild_values(int count) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i) {
    const Philox4 r = philox({static_cast<std::uint32_t>(i), 0, 0, 0}, 17);
    values.push_back(std::ldexp(uniform(r[0]) - 0.5f, static_cast<int>(r[1] % 60) - 30));
  }
  return values;
}

// The definition, spelled out by recursion: the sum of the leaves of one node.
template <class T>
T sum_of_node(const std::vector<T>& leaves, std::size_t begin, std::size_t size) {
  if (size == 1) return leaves[begin];
  const T left = sum_of_node(leaves, begin, size / 2);
  return begin + size / 2 < leaves.size() ? left + sum_of_node(leaves, begin + size / 2, size / 2) : left;
}

template <class T>
T sum_by_definition(const std::vector<T>& leaves) {
  return sum_of_node(leaves, 0, std::bit_ceil(leaves.size()));
}

// What `ranks` ranks compute together: each sums its own leaves in buffers, then the roots are combined.
float sum_by_ranks(const std::vector<float>& leaves, int ranks) {
  const int count = static_cast<int>(leaves.size());
  std::vector<Subtree> roots;
  std::vector<float> values;
  for (int rank = 0; rank < ranks; ++rank) {
    const LeafRange range = shards_of_rank(count, ranks, rank);
    std::vector<float> buffers(static_cast<std::size_t>(buffers_needed(count, range.begin, range.end)));
    for (const LeafStep& step : accumulation_steps(count, range.begin, range.end)) {
      buffers.at(static_cast<std::size_t>(step.buffer)) = leaves[static_cast<std::size_t>(step.leaf)];
      for (const Add& add : step.adds)
        buffers.at(static_cast<std::size_t>(add.left)) += buffers.at(static_cast<std::size_t>(add.right));
    }
    const std::vector<Subtree> own = roots_of_range(count, range.begin, range.end);
    for (std::size_t i = 0; i < own.size(); ++i) {
      roots.push_back(own[i]);
      values.push_back(buffers.at(i));
    }
  }
  for (const Add& add : combine_order(roots))
    values.at(static_cast<std::size_t>(add.left)) += values.at(static_cast<std::size_t>(add.right));
  return values.at(0);
}

TEST(Reduction, shards_are_contiguous_and_the_first_ranks_take_the_remainder) {
  EXPECT_EQ(shards_of_rank(8, 3, 0), (LeafRange{0, 3}));
  EXPECT_EQ(shards_of_rank(8, 3, 1), (LeafRange{3, 6}));
  EXPECT_EQ(shards_of_rank(8, 3, 2), (LeafRange{6, 8}));
  EXPECT_EQ(shards_of_rank(2, 3, 2), (LeafRange{2, 2}));
}

TEST(Reduction, roots_are_the_maximal_aligned_subtrees) {
  EXPECT_EQ(roots_of_range(8, 0, 8), (std::vector<Subtree>{{0, 8}}));
  EXPECT_EQ(roots_of_range(8, 0, 3), (std::vector<Subtree>{{0, 2}, {2, 1}}));
  EXPECT_EQ(roots_of_range(8, 3, 6), (std::vector<Subtree>{{3, 1}, {4, 2}}));
  EXPECT_EQ(roots_of_range(8, 1, 8), (std::vector<Subtree>{{1, 1}, {2, 2}, {4, 4}}));
  EXPECT_TRUE(roots_of_range(8, 4, 4).empty());
}

TEST(Reduction, every_number_of_ranks_gives_the_bits_of_one_rank) {
  for (const int shards : {1, 2, 4, 8, 16}) {
    const std::vector<float> leaves = wild_values(shards);
    const auto alone = std::bit_cast<std::uint32_t>(sum_by_definition(leaves));
    for (int ranks = 1; ranks <= shards; ++ranks)
      EXPECT_EQ(std::bit_cast<std::uint32_t>(sum_by_ranks(leaves, ranks)), alone)
          << shards << " shards, " << ranks << " ranks";
  }
}

TEST(Reduction, any_number_of_leaves_is_summed_over_the_tree_without_its_missing_leaves) {
  for (int leaves = 1; leaves <= 33; ++leaves) {
    const std::vector<float> values = wild_values(leaves);
    for (const int ranks : {1, (leaves + 1) / 2, leaves})
      EXPECT_EQ(std::bit_cast<std::uint32_t>(sum_by_ranks(values, ranks)),
                std::bit_cast<std::uint32_t>(sum_by_definition(values)))
          << leaves << " leaves, " << ranks << " ranks";
  }
}

TEST(Reduction, the_wild_values_notice_another_order) {
  const std::vector<float> leaves = wild_values(16);
  float in_a_row = 0;
  for (const float leaf : leaves) in_a_row += leaf;
  EXPECT_NE(in_a_row, sum_by_definition(leaves));
}

TEST(Reduction, a_power_of_two_of_ranks_needs_log2_of_its_shards_plus_one_buffers) {
  for (const int shards : {1, 2, 4, 8, 16})
    for (int ranks = 1; ranks <= shards; ranks *= 2)
      for (int rank = 0; rank < ranks; ++rank) {
        const LeafRange range = shards_of_rank(shards, ranks, rank);
        EXPECT_EQ(buffers_needed(shards, range.begin, range.end),
                  std::bit_width(static_cast<unsigned>(shards / ranks)));
        EXPECT_EQ(roots_of_range(shards, range.begin, range.end).size(), 1u);
      }
}

TEST(Reduction, no_number_of_ranks_needs_more_than_twice_the_depth_of_the_tree) {
  // A range has at most one open subtree of each size on the way up and one on the way down.
  for (int begin = 0; begin <= 16; ++begin)
    for (int end = begin; end <= 16; ++end) EXPECT_LE(buffers_needed(16, begin, end), 2 * 4);
}

TEST(Reduction, tree_sum_follows_the_tree_for_any_length) {
  EXPECT_EQ(tree_sum({}), 0.0);
  for (int count = 1; count <= 200; ++count) {
    std::vector<double> values;
    for (const float value : wild_values(count)) values.push_back(double{value} / 3);
    EXPECT_EQ(std::bit_cast<std::uint64_t>(tree_sum(values)),
              std::bit_cast<std::uint64_t>(sum_by_definition(values)))
        << count << " values";
  }
}

}  // namespace
}  // namespace muster
