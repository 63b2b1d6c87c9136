// What happens to the flat spaces of parameters, gradients and optimizer state.
#include "model/ops/flat.hpp"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <numbers>
#include <optional>
#include <utility>
#include <vector>

#include "core/parallel.hpp"
#include "core/philox.hpp"
#include "tests/model/test_device.hpp"
#include "tests/reference/values.hpp"

namespace muster {
namespace {

using reference::Values;
using testing::OnDevice;
using testing::TestDevice;

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

struct Spaces {
  std::vector<float> w, m, v;
  bool operator==(const Spaces&) const = default;
};

constexpr AdamW rule{.lr = 1e-3f, .decay = 0.1f};

StepOutcome outcome_of(int update) {
  StepOutcome outcome;
  outcome.gradient_scale = 0.25f;
  outcome.correction1 = 1 - std::pow(static_cast<double>(rule.beta1), update);
  outcome.correction2 = 1 - std::pow(static_cast<double>(rule.beta2), update);
  return outcome;
}

class Flat : public ::testing::TestWithParam<testing::TestBackend> {
 protected:
  void SetUp() override {
    if (!testing::has_device(GetParam())) GTEST_SKIP() << "no GPU is visible";
    device_.emplace(GetParam());
  }
  ~Flat() override { set_thread_count(threads_); }

  TestDevice& device() { return *device_; }
  const FlatKernels& kernels() { return device_->backend().flat; }

  // Twenty steps; `whole` or cut by cut, on so many threads.
  Spaces twenty_steps(bool whole, int threads) {
    set_thread_count(threads);
    const OnDevice<float> w(device(), singles(reference::random_values(count, 1)));
    const OnDevice<float> m(device(), count), v(device(), count);
    for (int update = 1; update <= 20; ++update) {
      const OnDevice<float> g(
          device(), singles(reference::random_values(count, static_cast<std::uint64_t>(100 + update))));
      const OnDevice<StepOutcome> outcome(device(), std::vector{outcome_of(update)});
      device().run([&](NativeStream stream) {
        if (whole) {
          kernels().adamw(stream, rule, outcome.data(), w.span(), m.span(), v.span(), g.span());
        } else {
          for (const auto& cut : cuts)
            kernels().adamw(stream, rule, outcome.data(), part(w.span(), cut), part(m.span(), cut),
                            part(v.span(), cut), part(g.span(), cut));
        }
      });
    }
    return {w.values(), m.values(), v.values()};
  }

  std::vector<double> block_squares(const std::vector<float>& x) {
    const OnDevice<float> on_device(device(), x);
    const OnDevice<double> sums(device(), (x.size() + flat_block - 1) / flat_block);
    device().run(
        [&](NativeStream stream) { kernels().block_squares(stream, on_device.span(), sums.span()); });
    return sums.values();
  }

 private:
  int threads_ = thread_count();
  std::optional<TestDevice> device_;
};

TEST_P(Flat, adamw_follows_the_double_version_over_twenty_steps) {
  const Spaces got = twenty_steps(true, 1);
  Values w;
  for (const float value : singles(reference::random_values(count, 1)))
    w.push_back(static_cast<double>(value));
  const Values start = w;
  Values m(count), v(count);
  for (int update = 1; update <= 20; ++update) {
    const StepOutcome outcome = outcome_of(update);
    const double lr = static_cast<double>(rule.lr), decay = static_cast<double>(rule.decay);
    const double b1 = static_cast<double>(rule.beta1), b2 = static_cast<double>(rule.beta2);
    const auto gradients = singles(reference::random_values(count, static_cast<std::uint64_t>(100 + update)));
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = static_cast<double>(gradients[i]) * static_cast<double>(outcome.gradient_scale);
      w[i] *= 1 - lr * decay;
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      w[i] -= lr / outcome.correction1 * m[i] /
              (std::sqrt(v[i]) / std::sqrt(outcome.correction2) + static_cast<double>(rule.epsilon));
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

TEST_P(Flat, adamw_does_nothing_in_a_skipped_step) {
  const Spaces before{singles(reference::random_values(count, 1)),
                      singles(reference::random_values(count, 2)),
                      singles(reference::random_values(count, 3))};
  const OnDevice<float> w(device(), before.w), m(device(), before.m), v(device(), before.v);
  const OnDevice<float> g(device(), std::vector<float>(count, std::nanf("")));
  StepOutcome outcome = outcome_of(3);
  outcome.skipped = 1;
  const OnDevice<StepOutcome> on_device(device(), std::vector{outcome});
  device().run([&](NativeStream stream) {
    kernels().adamw(stream, rule, on_device.data(), w.span(), m.span(), v.span(), g.span());
  });
  EXPECT_TRUE((Spaces{w.values(), m.values(), v.values()} == before));
}

TEST_P(Flat, adamw_gives_the_same_bits_however_a_range_is_cut_and_on_any_threads) {
  const Spaces whole = twenty_steps(true, 1);
  EXPECT_TRUE(twenty_steps(false, 1) == whole);
  for (int threads = 2; threads <= 4; ++threads) EXPECT_TRUE(twenty_steps(true, threads) == whole) << threads;
}

TEST_P(Flat, squares_are_summed_in_blocks_of_4096) {
  const std::vector<float> x = singles(reference::random_values(count, 2));
  const std::vector<double> sums = block_squares(x);
  for (std::size_t block = 0; block < 4; ++block) {
    double want = 0;
    for (std::size_t i = block * flat_block; i < std::min<std::size_t>(count, (block + 1) * flat_block); ++i)
      want += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    // Squares of f32 are exact in f64; at most 4,096 roundings of the sum.
    EXPECT_NEAR(sums[block], want, 4096 * 0x1p-53 * want) << block;
  }
  for (int threads = 1; threads <= 4; ++threads) {
    set_thread_count(threads);
    std::vector<double> again;
    for (const auto& [begin, end] : cuts)
      for (const double sum : block_squares({x.begin() + begin, x.begin() + end})) again.push_back(sum);
    EXPECT_EQ(again, sums) << threads;
  }
}

TEST_P(Flat, squares_of_the_largest_floats_do_not_overflow_and_nan_shows) {
  std::vector<float> x(flat_block, 3e38f);
  EXPECT_NEAR(block_squares(x)[0] / (4096 * 9e76), 1, 1e-6);
  x[17] = std::nanf("");
  EXPECT_TRUE(std::isnan(block_squares(x)[0]));
}

TEST_P(Flat, sums_and_copies_round_each_element_once) {
  const std::vector<float> a = singles(reference::random_values(count, 3));
  const std::vector<float> b = singles(reference::random_values(count, 4));
  const OnDevice<float> on_device(device(), a), more(device(), b);
  const OnDevice<bf16> halves(device(), count);
  device().run([&](NativeStream stream) {
    kernels().add(stream, on_device.span(), more.span());
    kernels().to_bf16(stream, on_device.span(), halves.span());
  });
  const std::vector<float> sum = on_device.values();
  const std::vector<bf16> rounded = halves.values();
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(sum[i], a[i] + b[i]) << i;
    ASSERT_EQ(rounded[i].bits, bf16(sum[i]).bits) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, Flat, ::testing::ValuesIn(testing::compiled_backends()),
                         [](const auto& kind) { return testing::test_name_of(kind.param); });

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
