#include "model/update/fresh_values.hpp"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <numbers>
#include <vector>

#include "core/philox.hpp"
#include "tests/model/update/flat_test.hpp"

namespace muster {
namespace {

using testing::count;
using testing::cuts;
using testing::part;

class Normal : public ::testing::Test {
 protected:
  ~Normal() override { set_thread_count(threads_); }

 private:
  int threads_ = thread_count();
};

TEST_F(Normal, normal_numbers_are_those_of_box_and_muller_on_philox) {
  const std::uint64_t seed = 0x9876543210ull;
  const std::uint32_t key = 31;
  const float scale = 0.02f;
  std::vector<float> x(count);
  fill_normal(x, flat_block, scale, key, seed);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto e = static_cast<std::uint32_t>(i + flat_block);
    const Philox4 words = philox({e / 4, 0, 0, key}, seed);
    const std::size_t pair = e % 4 / 2 * 2;
    const double u = 1 - static_cast<double>(uniform(words[pair]));
    const double angle = 2 * std::numbers::pi * static_cast<double>(uniform(words[pair + 1]));
    const double radius = static_cast<double>(scale) * std::sqrt(-2 * std::log(u));
    // Logarithm, root, cosine and two products: a few units in the last place of the radius.
    ASSERT_NEAR(static_cast<double>(x[i]), radius * (e % 2 == 0 ? std::cos(angle) : std::sin(angle)),
                8 * 0x1p-24 * radius + 0x1p-40)
        << i;
  }
}

TEST_F(Normal, normal_numbers_do_not_depend_on_cuts_or_threads) {
  std::vector<float> whole(count), pieces(count);
  fill_normal(whole, 0, 1, 5, 6);
  for (int threads = 1; threads <= 4; ++threads) {
    set_thread_count(threads);
    for (const auto& cut : cuts) fill_normal(part(std::span(pieces), cut), cut.first, 1, 5, 6);
    EXPECT_EQ(pieces, whole) << threads;
  }
}

TEST_F(Normal, normal_numbers_have_the_moments_of_the_normal_distribution) {
  const std::int64_t draws = 1 << 20;
  std::vector<float> x(draws);
  fill_normal(x, 0, 1, 7, 8);
  double moments[5] = {}, neighbours = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double power = 1;
    for (double& moment : moments) {
      moment += power / static_cast<double>(draws);
      power *= static_cast<double>(x[i]);
    }
    if (i > 0)
      neighbours += static_cast<double>(x[i]) * static_cast<double>(x[i - 1]) / static_cast<double>(draws);
  }
  // Five standard deviations of the mean of x^k over 2^20 draws: sqrt(E x^2k - (E x^k)^2) / 1024.
  EXPECT_NEAR(moments[1], 0, 5.0 / 1024);
  EXPECT_NEAR(moments[2], 1, 5 * std::sqrt(2.0) / 1024);
  EXPECT_NEAR(moments[3], 0, 5 * std::sqrt(15.0) / 1024);
  EXPECT_NEAR(moments[4], 3, 5 * std::sqrt(96.0) / 1024);
  EXPECT_NEAR(neighbours, 0, 5.0 / 1024);
  const auto [least, most] = std::minmax_element(x.begin(), x.end());
  EXPECT_GT(*most, 4);
  EXPECT_LT(*least, -4);
}

}  // namespace
}  // namespace muster
