#include "data/permutation.hpp"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <vector>

namespace muster {
namespace {

TEST(Permutation, hits_each_number_once_at_any_count) {
  for (const std::uint64_t count : {1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 65, 1000, 4096, 4097, 100003}) {
    const Permutation permutation(count, 1, 2, 3);
    std::vector<bool> seen(count, false);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t at = permutation(i);
      ASSERT_LT(at, count);
      EXPECT_FALSE(seen[at]) << at << " twice of " << count;
      seen[at] = true;
    }
  }
}

TEST(Permutation, works_at_counts_that_no_list_could_hold) {
  const Permutation permutation((std::uint64_t{1} << 62) + 12345, 7, 0, 0);
  std::vector<std::uint64_t> got;
  for (std::uint64_t i = 0; i < 1000; ++i) got.push_back(permutation(i));
  std::sort(got.begin(), got.end());
  EXPECT_EQ(std::adjacent_find(got.begin(), got.end()), got.end());
  EXPECT_LT(got.back(), permutation.count());
  EXPECT_GT(got.back(), std::uint64_t{1} << 61);
}

TEST(Permutation, seed_stream_and_number_each_change_it) {
  const auto places_in_common = [](const Permutation& a, const Permutation& b) {
    int common = 0;
    for (std::uint64_t i = 0; i < 1000; ++i) common += a(i) == b(i) ? 1 : 0;
    return common;
  };
  const Permutation base(1000, 5, 6, 7);
  EXPECT_EQ(places_in_common(base, Permutation(1000, 5, 6, 7)), 1000);
  // Unrelated permutations have one place in common on average (Poisson): 10 or more has chance 1e-7.
  EXPECT_LT(places_in_common(base, Permutation(1000, 6, 6, 7)), 10);
  EXPECT_LT(places_in_common(base, Permutation(1000, 5, 7, 7)), 10);
  EXPECT_LT(places_in_common(base, Permutation(1000, 5, 6, 8)), 10);
  EXPECT_LT(places_in_common(base, Permutation(1000, 6, 5, 7)), 10);
}

TEST(Permutation, leaves_no_trace_of_the_order) {
  // Over permutations of 16, each place receives each number equally often: chi-squared with 15 x 15 degrees
  // of freedom has mean 225 and deviation sqrt(2 x 225) = 21; five deviations are allowed.
  constexpr int count = 16, draws = 16000;
  std::vector<std::vector<int>> hits(count, std::vector<int>(count, 0));
  for (std::uint64_t draw = 0; draw < draws; ++draw) {
    const Permutation permutation(count, 11, 0, draw);
    for (std::uint64_t i = 0; i < count; ++i) ++hits[i][permutation(i)];
  }
  double chi_squared = 0;
  for (const auto& row : hits)
    for (const int hit : row)
      chi_squared += (hit - draws / count) * (hit - draws / count) / double(draws / count);
  EXPECT_NEAR(chi_squared, 225, 5 * std::sqrt(450.0));

  // Neighbours do not stay neighbours: the mean distance of images of i and i + 1 is n / 3, as for random
  // pairs.
  constexpr std::uint64_t n = 10007;
  const Permutation permutation(n, 3, 0, 0);
  double distance = 0;
  for (std::uint64_t i = 0; i + 1 < n; ++i)
    distance += std::abs(static_cast<double>(permutation(i)) - static_cast<double>(permutation(i + 1)));
  // Deviation of one distance is n / sqrt(18); of their mean, about n / sqrt(18 n).
  EXPECT_NEAR(distance / (n - 1), n / 3.0, 5 * n / std::sqrt(18.0 * n));
}

// The order of a run is part of its identity: it may not change between versions. The values were computed
// from the formula in permutation.hpp by an independent program.
TEST(Permutation, is_the_same_in_every_version) {
  const auto first = [](const Permutation& permutation, std::uint64_t count) {
    std::vector<std::uint64_t> got;
    for (std::uint64_t i = 0; i < count; ++i) got.push_back(permutation(i));
    return got;
  };
  EXPECT_EQ(first(Permutation(1000, 42, 1, 0), 5), (std::vector<std::uint64_t>{297, 328, 607, 633, 848}));
  EXPECT_EQ(first(Permutation((std::uint64_t{1} << 40) + 3, ~std::uint64_t{0}, 7, 9), 3),
            (std::vector<std::uint64_t>{220161672703, 133829496664, 560139904870}));
}

}  // namespace
}  // namespace muster
