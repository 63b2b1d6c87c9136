// Matrix products in doubles, and how far sums in f32 may lie from them.
#pragma once

#include <cmath>
#include <cstdint>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "tests/model/run_op.hpp"

namespace muster::testing {

// Half a unit in the last place, relative: the error of one rounding.
constexpr double rounding(DType type) { return type == DType::bf16 ? 0x1p-8 : 0x1p-24; }

inline std::vector<double> numbers(std::int64_t count, unsigned seed, double scale = 1.0) {
  std::vector<double> values(static_cast<std::size_t>(count));
  std::uint32_t state = seed * 2654435761u + 1;
  for (double& value : values) {
    state = state * 1664525u + 1013904223u;
    value = scale * (static_cast<double>(state >> 8) * 0x1p-23 - 1.0);
  }
  return values;
}

inline TestTensor tensor(std::int64_t rows, std::int64_t columns, DType type, unsigned seed,
                         double scale = 1.0) {
  return TestTensor({{rows, columns}, type}, numbers(rows * columns, seed, scale));
}

// A product in doubles, and the sum of magnitudes that its rounding errors are relative to.
struct Product {
  std::vector<double> value, magnitude;
};

inline Product multiply(const std::vector<double>& a, const std::vector<double>& b, std::int64_t m,
                        std::int64_t n, std::int64_t k, bool a_transposed, bool b_transposed) {
  Product c{std::vector<double>(static_cast<std::size_t>(m * n)),
            std::vector<double>(static_cast<std::size_t>(m * n))};
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t l = 0; l < k; ++l)
      for (std::int64_t j = 0; j < n; ++j) {
        const double term = a[static_cast<std::size_t>(a_transposed ? l * m + i : i * k + l)] *
                            b[static_cast<std::size_t>(b_transposed ? j * k + l : l * n + j)];
        c.value[static_cast<std::size_t>(i * n + j)] += term;
        c.magnitude[static_cast<std::size_t>(i * n + j)] += std::abs(term);
      }
  return c;
}

inline void expect_close(const std::vector<double>& got, const std::vector<double>& expected,
                         const std::vector<double>& tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_LE(std::abs(got[i] - expected[i]), tolerance[i])
        << what << " at " << i << ": " << got[i] << " for " << expected[i];
}

// Of f32 sums of `terms` terms (a chain errs by at most a rounding of its magnitude a term), stored as
// `type`.
inline std::vector<double> sum_tolerance(const Product& product, std::int64_t terms, DType type) {
  std::vector<double> tolerance(product.value.size());
  for (std::size_t i = 0; i < tolerance.size(); ++i)
    tolerance[i] = static_cast<double>(terms) * 0x1p-24 * product.magnitude[i] +
                   rounding(type) * std::abs(product.value[i]) + 1e-30;
  return tolerance;
}

}  // namespace muster::testing
