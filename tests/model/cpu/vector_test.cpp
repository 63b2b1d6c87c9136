// The vector functions that every CPU kernel stands on, compiled for the same instruction set as the kernels.
#include "model/ops/cpu/vector.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <gtest/gtest.h>
#include <limits>
#include <vector>

#include "tests/model/cpu/level.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

using OF_LEVEL(Vector) = OfLevel;

constexpr float infinity = std::numeric_limits<float>::infinity();
const float nan = std::numeric_limits<float>::quiet_NaN();

// Distance of `value` from `exact` in units of the last place of an f32 of exact's size.
double units(float value, double exact) {
  const double unit = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
  return std::abs(static_cast<double>(value) - exact) / unit;
}

// Largest such distance of f over evenly spaced points of [from, to].
template <class F>
double worst(F f, const std::function<double(double)>& exact, float from, float to) {
  double distance = 0;
  constexpr int points = 1 << 20;
  for (int i = 0; i < points; i += lanes) {
    float x[lanes], y[lanes];
    for (int j = 0; j < lanes; ++j)
      x[j] = from + (to - from) * static_cast<float>(i + j) / static_cast<float>(points);
    store(y, f(load(x)));
    for (int j = 0; j < lanes; ++j) distance = std::max(distance, units(y[j], exact(x[j])));
  }
  return distance;
}

double exact_gelu(double z) {
  // (1 + tanh u) / 2, written so that the double keeps its digits for large negative u.
  return z / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
}

float first(Floats v) { return v[0]; }

TEST_F(OF_LEVEL(Vector), exp_is_within_two_units_in_the_last_place) {
  const auto f = [](Floats x) { return exp(x); };
  const auto exact = [](double x) { return std::exp(x); };
  EXPECT_LE(worst(f, exact, -87.29f, 88.69f), 2.0);
  EXPECT_LE(worst(f, exact, -1.0f, 1.0f), 2.0);
}

TEST_F(OF_LEVEL(Vector), exp_makes_no_denormals_and_keeps_nan_and_infinities) {
  EXPECT_EQ(first(exp(broadcast(-87.31f))), 0.0f);
  EXPECT_EQ(first(exp(broadcast(-1e30f))), 0.0f);
  EXPECT_EQ(first(exp(broadcast(-infinity))), 0.0f);
  EXPECT_GE(first(exp(broadcast(-87.29f))), std::numeric_limits<float>::min());
  EXPECT_EQ(first(exp(broadcast(0.0f))), 1.0f);
  EXPECT_EQ(first(exp(broadcast(89.0f))), infinity);
  EXPECT_EQ(first(exp(broadcast(infinity))), infinity);
  EXPECT_TRUE(std::isnan(first(exp(broadcast(nan)))));
}

TEST_F(OF_LEVEL(Vector), sigmoid_is_within_four_units_in_the_last_place) {
  const auto f = [](Floats x) { return sigmoid(x); };
  EXPECT_LE(worst(
                f, [](double x) { return 1 / (1 + std::exp(-x)); }, -80.0f, 80.0f),
            4.0);
  EXPECT_EQ(first(sigmoid(broadcast(-infinity))), 0.0f);
  EXPECT_EQ(first(sigmoid(broadcast(infinity))), 1.0f);
}

TEST_F(OF_LEVEL(Vector), gelu_keeps_its_digits_also_where_it_nearly_vanishes) {
  // The exponent 2u is rounded to f32: |2u| < 4 there, so its own error is up to 4 units; at z = -4, |2u|
  // = 11.
  const auto f = [](Floats z) { return gelu(z); };
  EXPECT_LE(worst(f, exact_gelu, -1.5f, 10.0f), 8.0);
  EXPECT_LE(worst(f, exact_gelu, -4.0f, -1.5f), 24.0);
  EXPECT_EQ(first(gelu(broadcast(-30.0f))), 0.0f);
  EXPECT_TRUE(std::isnan(first(gelu(broadcast(nan)))));
}

TEST_F(OF_LEVEL(Vector), gelu_derivative_is_the_slope_of_gelu) {
  for (float z = -6.0f; z < 6.0f; z += 0.0371f) {
    // Central difference in doubles: error h^2/6 f''' ~ 1e-9.
    const double h = 1e-4;
    const double slope =
        (exact_gelu(static_cast<double>(z) + h) - exact_gelu(static_cast<double>(z) - h)) / (2 * h);
    EXPECT_NEAR(static_cast<double>(first(gelu_derivative(broadcast(z)))), slope, 1e-6) << z;
  }
}

TEST_F(OF_LEVEL(Vector), bf16_rounds_exactly_as_the_type_does) {
  std::vector<float> values = {0.0f, -0.0f,  1.0f,    infinity,      -infinity,
                               nan,  1e-40f, -1e-45f, 3.3895314e38f, 3.4e38f};
  std::uint32_t state = 1;
  while (values.size() % lanes != 0 || values.size() < 65536) {
    state = state * 1664525u + 1013904223u;
    values.push_back(std::bit_cast<float>(state));                            // any pattern
    values.push_back(std::bit_cast<float>((state & 0xffff0000u) | 0x8000u));  // ties
  }
  for (std::size_t i = 0; i < values.size(); i += lanes) {
    bf16 rounded[lanes];
    float back[lanes];
    store(rounded, load(&values[i]));
    store(back, load(rounded));
    for (std::size_t j = 0; j < lanes; ++j) {
      EXPECT_EQ(rounded[j].bits, bf16(values[i + j]).bits) << values[i + j];
      EXPECT_EQ(std::bit_cast<std::uint32_t>(back[j]), static_cast<std::uint32_t>(rounded[j].bits) << 16);
    }
  }
}

template <class T>
void check_parts() {
  for (std::int64_t count = 0; count <= lanes; ++count) {
    std::vector<T> from(static_cast<std::size_t>(count)), to(lanes, T(-7.0f));
    for (std::int64_t i = 0; i < count; ++i) from[static_cast<std::size_t>(i)] = T(static_cast<float>(i + 1));
    const Floats v = load_part(from.data(), count);
    store_part(to.data(), v + 1.0f, count);
    for (std::int64_t i = 0; i < lanes; ++i) {
      EXPECT_EQ(v[i], i < count ? static_cast<float>(i + 1) : 0.0f);
      EXPECT_EQ(static_cast<float>(to[static_cast<std::size_t>(i)]),
                i < count ? static_cast<float>(i + 2) : -7.0f);
    }
  }
}

TEST_F(OF_LEVEL(Vector), parts_touch_only_their_own_elements) {
  check_parts<float>();
  check_parts<bf16>();
}

TEST_F(OF_LEVEL(Vector), sums_and_maxima_take_every_lane_once) {
  for (int lane = 0; lane < lanes; ++lane) {
    Floats v{};
    v[lane] = 3.0f;
    EXPECT_EQ(sum(v), 3.0f);
    EXPECT_EQ(largest(v), 3.0f);
    EXPECT_EQ(largest(v - 10.0f), -7.0f);
  }
}

TEST_F(OF_LEVEL(Vector), running_maximum_passes_nan_on) {
  EXPECT_TRUE(std::isnan(first(max(broadcast(1.0f), broadcast(nan)))));
  EXPECT_EQ(first(max(broadcast(nan), broadcast(1.0f))), 1.0f);
}

}  // namespace
}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
