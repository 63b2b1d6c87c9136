// Values of the slow, obvious versions of the ops: flat, row-major, in double precision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "core/dtype.hpp"

namespace muster::reference {

using Values = std::vector<double>;
using Tensors = std::vector<Values>;  // an absent one is empty

inline double rounded(double value, DType type) {
  if (type == DType::f64) return value;
  const float single = static_cast<float>(value);
  return static_cast<double>(type == DType::bf16 ? static_cast<float>(bf16(single)) : single);
}

inline Values rounded(Values values, DType type) {
  for (double& value : values) value = rounded(value, type);
  return values;
}

// Normally distributed.
inline Values random_values(std::int64_t count, std::uint64_t seed, double scale = 1) {
  std::mt19937_64 bits(seed);
  std::normal_distribution<double> normal(0, scale);
  Values values(static_cast<std::size_t>(count));
  for (double& value : values) value = normal(bits);
  return values;
}

// Integers in [low, high].
inline Values random_integers(std::int64_t count, std::uint64_t seed, int low, int high) {
  std::mt19937_64 bits(seed);
  std::uniform_int_distribution<int> uniform(low, high);
  Values values(static_cast<std::size_t>(count));
  for (double& value : values) value = uniform(bits);
  return values;
}

inline double dot(const Values& a, const Values& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

// d f / d x by central differences of fourth order: with steps of 1e-3 its error is about 1e-12 of f's fifth
// derivative, and that of rounding about 1e-13 of f.
inline Values differences(const std::function<double(const Values&)>& f, Values x) {
  Values slopes(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i], h = 1e-3;
    const auto value = [&](double there) {
      x[i] = there;
      return f(x);
    };
    slopes[i] = (8 * (value(at + h) - value(at - h)) - (value(at + 2 * h) - value(at - 2 * h))) / (12 * h);
    x[i] = at;
  }
  return slopes;
}

}  // namespace muster::reference
