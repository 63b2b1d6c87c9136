// Matrix products, and the head's cross-entropy on top of one.
#pragma once

#include <algorithm>
#include <cmath>

#include "tests/reference/values.hpp"

namespace muster::reference {

// a [n, k] b [o, k]^T + bias [o]
inline Values linear(const Values& a, const Values& b, const Values& bias, std::size_t k) {
  const std::size_t n = a.size() / k, o = b.size() / k;
  Values y(n * o);
  for (std::size_t row = 0; row < n; ++row)
    for (std::size_t column = 0; column < o; ++column) {
      double total = bias.empty() ? 0 : bias[column];
      for (std::size_t i = 0; i < k; ++i) total += a[row * k + i] * b[column * k + i];
      y[row * o + column] = total;
    }
  return y;
}

inline Values transposed(const Values& a, std::size_t columns) {
  const std::size_t rows = a.size() / columns;
  Values t(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) t[i % columns * rows + i / columns] = a[i];
  return t;
}

// loss, dx, dw. Classes beyond `classes` are padding; rows with a negative target are ignored.
inline Tensors linear_cross_entropy(const Values& x, const Values& w, const Values& targets,
                                    std::size_t width, std::size_t classes) {
  const std::size_t padded = w.size() / width;
  Values logits = linear(x, w, {}, width);
  double loss = 0;
  for (std::size_t n = 0; n < targets.size(); ++n) {
    double* row = logits.data() + n * padded;
    const double largest = *std::max_element(row, row + classes);
    double total = 0;
    for (std::size_t v = 0; v < classes; ++v) total += std::exp(row[v] - largest);
    const bool counts = targets[n] >= 0;
    if (counts) loss += std::log(total) + largest - row[static_cast<std::size_t>(targets[n])];
    for (std::size_t v = 0; v < padded; ++v)  // the logits become their gradient
      row[v] = !counts || v >= classes
                   ? 0
                   : std::exp(row[v] - largest) / total - (static_cast<double>(v) == targets[n] ? 1 : 0);
  }
  return {{loss},
          linear(logits, transposed(w, width), {}, padded),
          linear(transposed(logits, padded), transposed(x, width), {}, targets.size())};
}

}  // namespace muster::reference
