// What happens to the flat spaces of parameters, gradients and optimizer state.
#include "model/ops/flat.hpp"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <numbers>
#include <utility>
#include <vector>

#include "core/parallel.hpp"
#include "core/philox.hpp"
#include "tests/reference/values.hpp"

namespace muster {
namespace {

using reference::Values;

std::vector<float> singles(const Values& values) {
  std::vector<float> singles;
  for (const double value : values) singles.push_back(static_cast<float>(value));
  return singles;
}

// Three blocks and a rest that is no whole vector.
constexpr std::int64_t count = 3 * flat_block + 37;

// Cuts of [0, count) at multiples of a block.
constexpr std::pair<std::int64_t, std::int64_t> cuts[] = {
    {0, flat_block}, {flat_block, 3 * flat_block}, {3 * flat_block, count}};

template <class T>
std::span<T> part(std::span<T> all, std::pair<std::int64_t, std::int64_t> cut) {
  return all.subspan(static_cast<std::size_t>(cut.first), static_cast<std::size_t>(cut.second - cut.first));
}

template <class T>
std::span<const T> part(const std::vector<T>& all, std::pair<std::int64_t, std::int64_t> cut) {
  return part(std::span<const T>(all), cut);
}

template <class T>
std::span<T> part(std::vector<T>& all, std::pair<std::int64_t, std::int64_t> cut) {
  return part(std::span<T>(all), cut);
}

struct Spaces {
  std::vector<float> w, m, v;
  bool operator==(const Spaces&) const = default;
};

AdamW rule_at(int step) {
  AdamW rule;
  rule.lr = 1e-3f;
  rule.decay = 0.1f;
  rule.gradient_scale = 0.25f;
  rule.correction1 = 1 - std::pow(static_cast<double>(rule.beta1), step);
  rule.correction2 = 1 - std::pow(static_cast<double>(rule.beta2), step);
  return rule;
}

// Twenty steps; `whole` or cut by cut, on so many threads.
Spaces twenty_steps(bool whole, int threads) {
  set_thread_count(threads);
  Spaces s{singles(reference::random_values(count, 1)), std::vector<float>(count), std::vector<float>(count)};
  for (int step = 1; step <= 20; ++step) {
    const std::vector<float> g =
        singles(reference::random_values(count, static_cast<std::uint64_t>(100 + step)));
    if (whole) {
      cpu_flat_kernels().adamw(rule_at(step), s.w, s.m, s.v, g);
    } else {
      for (const auto& cut : cuts)
        cpu_flat_kernels().adamw(rule_at(step), part(s.w, cut), part(s.m, cut), part(s.v, cut), part(g, cut));
    }
  }
  return s;
}

class Flat : public ::testing::Test {
 protected:
  ~Flat() override { set_thread_count(threads_); }

 private:
  int threads_ = thread_count();
};

TEST_F(Flat, adamw_follows_the_double_version_over_twenty_steps) {
  const Spaces got = twenty_steps(true, 1);
  Values w;
  for (const float value : singles(reference::random_values(count, 1)))
    w.push_back(static_cast<double>(value));
  const Values start = w;
  Values m(count), v(count);
  for (int step = 1; step <= 20; ++step) {
    const AdamW rule = rule_at(step);
    const double lr = static_cast<double>(rule.lr), decay = static_cast<double>(rule.decay);
    const double b1 = static_cast<double>(rule.beta1), b2 = static_cast<double>(rule.beta2);
    const auto gradients = singles(reference::random_values(count, static_cast<std::uint64_t>(100 + step)));
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = static_cast<double>(gradients[i]) * static_cast<double>(rule.gradient_scale);
      w[i] *= 1 - lr * decay;
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      w[i] -= lr / rule.correction1 * m[i] /
              (std::sqrt(v[i]) / std::sqrt(rule.correction2) + static_cast<double>(rule.epsilon));
    }
  }
  // A weight is rounded twice a step, to half a unit of at most 2^-22 (|w| < 8); an update of at most about
  // lr carries some ten roundings of its own, which do not count beside that.
  for (std::size_t i = 0; i < w.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got.w[i]), w[i], 20 * 2 * 0x1p-23) << i;
    ASSERT_NEAR(static_cast<double>(got.m[i]), m[i], 40 * 0x1p-24) << i;
    ASSERT_NEAR(static_cast<double>(got.v[i]), v[i], 60 * 0x1p-24 * v[i]) << i;
    ASSERT_NE(start[i], w[i]) << i;
  }
}

TEST_F(Flat, adamw_gives_the_same_bits_however_a_range_is_cut_and_on_any_threads) {
  const Spaces whole = twenty_steps(true, 1);
  EXPECT_TRUE(twenty_steps(false, 1) == whole);
  for (int threads = 2; threads <= 4; ++threads) EXPECT_TRUE(twenty_steps(true, threads) == whole) << threads;
}

TEST_F(Flat, squares_are_summed_in_blocks_of_4096) {
  const std::vector<float> x = singles(reference::random_values(count, 2));
  std::vector<double> sums(4, -1.0), again(4);
  cpu_flat_kernels().block_squares(x, sums);
  for (std::size_t block = 0; block < 4; ++block) {
    double want = 0;
    for (std::size_t i = block * flat_block; i < std::min<std::size_t>(count, (block + 1) * flat_block); ++i)
      want += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    // Squares of f32 are exact in f64; at most 4,096 roundings of the sum.
    EXPECT_NEAR(sums[block], want, 4096 * 0x1p-53 * want) << block;
  }
  for (int threads = 1; threads <= 4; ++threads) {
    set_thread_count(threads);
    std::size_t block = 0;
    for (const auto& cut : cuts) {
      const std::size_t blocks =
          static_cast<std::size_t>((cut.second - cut.first + flat_block - 1) / flat_block);
      cpu_flat_kernels().block_squares(part(x, cut), std::span(again).subspan(block, blocks));
      block += blocks;
    }
    EXPECT_EQ(again, sums) << threads;
  }
}

TEST_F(Flat, squares_of_the_largest_floats_do_not_overflow_and_nan_shows) {
  std::vector<float> x(flat_block, 3e38f);
  std::vector<double> sum(1);
  cpu_flat_kernels().block_squares(x, sum);
  EXPECT_NEAR(sum[0] / (4096 * 9e76), 1, 1e-6);
  x[17] = std::nanf("");
  cpu_flat_kernels().block_squares(x, sum);
  EXPECT_TRUE(std::isnan(sum[0]));
}

TEST_F(Flat, sums_and_copies_round_each_element_once) {
  std::vector<float> a = singles(reference::random_values(count, 3));
  const std::vector<float> b = singles(reference::random_values(count, 4)), before = a;
  cpu_flat_kernels().add(a, b);
  std::vector<bf16> halves(count);
  cpu_flat_kernels().to_bf16(a, halves);
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i], before[i] + b[i]) << i;
    ASSERT_EQ(halves[i].bits, bf16(a[i]).bits) << i;
  }
}

TEST_F(Flat, normal_numbers_are_those_of_box_and_muller_on_philox) {
  const std::uint64_t seed = 0x9876543210ull;
  const std::uint32_t key = 31;
  const float scale = 0.02f;
  std::vector<float> x(count);
  cpu_flat_kernels().fill_normal(x, flat_block, scale, key, seed);
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

TEST_F(Flat, normal_numbers_do_not_depend_on_cuts_or_threads) {
  std::vector<float> whole(count), pieces(count);
  cpu_flat_kernels().fill_normal(whole, 0, 1, 5, 6);
  for (int threads = 1; threads <= 4; ++threads) {
    set_thread_count(threads);
    for (const auto& cut : cuts) cpu_flat_kernels().fill_normal(part(pieces, cut), cut.first, 1, 5, 6);
    EXPECT_EQ(pieces, whole) << threads;
  }
}

TEST_F(Flat, normal_numbers_have_the_moments_of_the_normal_distribution) {
  const std::int64_t draws = 1 << 20;
  std::vector<float> x(draws);
  cpu_flat_kernels().fill_normal(x, 0, 1, 7, 8);
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
