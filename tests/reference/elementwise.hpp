// GELU, SwiGLU, dropout, rotary positions and embedding, as the headers in model/ops state them.
#pragma once

#include <cmath>
#include <numbers>

#include "core/philox.hpp"
#include "model/ops/kernel.hpp"
#include "tests/reference/values.hpp"

namespace muster::reference {

inline double gelu(double z) {
  return z / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z)));
}

inline double gelu_slope(double z) {
  const double t = std::tanh(std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z));
  return (1 + t) / 2 + z / 2 * (1 - t * t) * std::sqrt(2 / std::numbers::pi) * (1 + 3 * 0.044715 * z * z);
}

inline double gelu_erf(double z) { return z / 2 * std::erfc(-z / std::numbers::sqrt2); }

inline double gelu_erf_slope(double z) {
  return std::erfc(-z / std::numbers::sqrt2) / 2 + z * std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
}

inline double sigmoid(double g) { return 1 / (1 + std::exp(-g)); }

inline Values swiglu(const Values& gate_up, std::size_t width) {
  Values y(gate_up.size() / 2);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t at = i / width * 2 * width + i % width;
    y[i] = gate_up[at] * sigmoid(gate_up[at]) * gate_up[at + width];
  }
  return y;
}

inline Values swiglu_gradient(const Values& dy, const Values& gate_up, std::size_t width) {
  Values d(gate_up.size());
  for (std::size_t i = 0; i < dy.size(); ++i) {
    const std::size_t at = i / width * 2 * width + i % width;
    const double g = gate_up[at], s = sigmoid(g);
    d[at] = dy[i] * gate_up[at + width] * s * (1 + g * (1 - s));
    d[at + width] = dy[i] * g * s;
  }
  return d;
}

// `length` elements a sample.
inline Values dropout(const Values& x, double p, std::size_t length, const StepScalars& scalars,
                      std::uint32_t random_key) {
  Values y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto e = static_cast<std::uint32_t>(i % length);
    const auto slot = scalars.first_slot + static_cast<std::uint32_t>(i / length);
    const Philox4 words = philox({e / 4, slot, scalars.step, random_key}, scalars.seed);
    y[i] = static_cast<double>(uniform(words[e % 4])) >= p ? x[i] / (1 - p) : 0;
  }
  return y;
}

inline Values rope(const Values& x, const Values& positions, std::size_t heads, std::size_t size, double base,
                   bool inverse) {
  Values y = x;
  const std::size_t columns = x.size() / positions.size();
  for (std::size_t row = 0; row < positions.size(); ++row)
    for (std::size_t head = 0; head < heads; ++head)
      for (std::size_t i = 0; i < size / 2; ++i) {
        const double turn = std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(size));
        const double angle = (inverse ? -1 : 1) * positions[row] * turn;
        const std::size_t a = row * columns + head * size + i, b = a + size / 2;
        y[a] = x[a] * std::cos(angle) - x[b] * std::sin(angle);
        y[b] = x[b] * std::cos(angle) + x[a] * std::sin(angle);
      }
  return y;
}

inline Values embedding(const Values& ids, const Values& table, std::size_t columns) {
  Values y;
  for (const double id : ids)
    for (std::size_t c = 0; c < columns; ++c) y.push_back(table[static_cast<std::size_t>(id) * columns + c]);
  return y;
}

inline Values embedding_gradient(const Values& ids, const Values& dy, std::size_t rows) {
  const std::size_t columns = dy.size() / ids.size();
  Values table(rows * columns);
  for (std::size_t n = 0; n < ids.size(); ++n)
    for (std::size_t c = 0; c < columns; ++c)
      table[static_cast<std::size_t>(ids[n]) * columns + c] += dy[n * columns + c];
  return table;
}

}  // namespace muster::reference
