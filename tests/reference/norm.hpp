// LayerNorm and RMSNorm as model/ops/norm.hpp states them.
#pragma once

#include <cmath>

#include "model/ops/norm.hpp"
#include "tests/reference/values.hpp"

namespace muster::reference {

inline Values statistics(NormKind kind, double epsilon, const Values& s, std::size_t columns) {
  Values statistics;
  for (std::size_t row = 0; row < s.size(); row += columns) {
    double mean = 0, squares = 0;
    if (kind == NormKind::layer)
      for (std::size_t c = 0; c < columns; ++c) mean += s[row + c] / static_cast<double>(columns);
    for (std::size_t c = 0; c < columns; ++c) squares += (s[row + c] - mean) * (s[row + c] - mean);
    statistics.push_back(mean);
    statistics.push_back(1 / std::sqrt(squares / static_cast<double>(columns) + epsilon));
  }
  return statistics;
}

inline Values normalize(const Values& s, const Values& statistics, const Values& weight, const Values& bias) {
  Values y(s.size());
  for (std::size_t i = 0; i < s.size(); ++i) {
    const std::size_t row = i / weight.size(), c = i % weight.size();
    y[i] = (s[i] - statistics[2 * row]) * statistics[2 * row + 1] * weight[c] + (bias.empty() ? 0 : bias[c]);
  }
  return y;
}

// ds, dweight, dbias.
inline Tensors norm_gradient(NormKind kind, const Values& dy, const Values& d_sum, const Values& s,
                             const Values& statistics, const Values& weight) {
  const std::size_t columns = weight.size();
  Values ds(s.size()), dweight(columns), dbias(columns);
  for (std::size_t row = 0; row < s.size() / columns; ++row) {
    const double mean = statistics[2 * row], rstd = statistics[2 * row + 1];
    double mean_g = 0, mean_gh = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::size_t i = row * columns + c;
      const double h = (s[i] - mean) * rstd, g = dy[i] * weight[c];
      if (kind == NormKind::layer) mean_g += g / static_cast<double>(columns);
      mean_gh += g * h / static_cast<double>(columns);
      dweight[c] += dy[i] * h;
      dbias[c] += dy[i];
    }
    for (std::size_t c = 0; c < columns; ++c) {
      const std::size_t i = row * columns + c;
      const double h = (s[i] - mean) * rstd, g = dy[i] * weight[c];
      ds[i] = rstd * (g - mean_g - h * mean_gh) + (d_sum.empty() ? 0 : d_sum[i]);
    }
  }
  return {ds, dweight, dbias};
}

}  // namespace muster::reference
