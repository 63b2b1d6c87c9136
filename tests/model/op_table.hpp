// The table of ops: for each kernel, rows of shapes and types, the double-precision version and tolerances.
// op_table_test.cpp holds the kernels of every backend to every row; op_rows_*.cpp write the rows, a family each.
#pragma once

#include <fmt/format.h>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.hpp"
#include "model/ops/op.hpp"
#include "tests/model/run_op.hpp"
#include "tests/reference/values.hpp"

namespace muster::testing {

using reference::Tensors;
using reference::Values;

// |kernel - double| <= u |double| + (f32 2^-24 + bf16 2^-8) max |double|, u being the unit roundoff of the
// output's type. `f32` counts the roundings of the longest chain of f32 operations behind an element: the
// errors of a sum of n terms of random signs grow like sqrt(n), so that n is safe and 16 times the tolerance
// finds a lost term. `bf16` counts the intermediate results that are rounded to bf16 on the way. -1 in f32:
// the bits must be those of the double rounded to the output's type.
struct Roundings {
  double f32 = 0;
  double bf16 = 0;
};
inline constexpr Roundings exact{-1, 0};

// The gradients that a kernel computes are checked against the forward op itself: output i of the row's op
// must be the derivative of `loss` with respect to variables[i].
struct Differences {
  Tensors variables;
  std::function<double(const Tensors& variables)> loss;
};

struct Row {
  std::string what;
  std::shared_ptr<const Op> op;
  std::vector<TensorType> inputs;  // an absent one has no shape
  Tensors values;
  // Outputs from the inputs as rounded to their types; behind them, if an input is changed on purpose, what
  // it becomes.
  std::function<Tensors(const Tensors& inputs)> reference;
  std::vector<Roundings> roundings;  // of each output
  RunOptions options{};
  std::optional<std::vector<TensorType>> outputs{};  // where differentiation appends outputs to op.infer's
  std::optional<Differences> differences{};
};

inline TensorType matrix(std::int64_t rows, std::int64_t columns, DType type) {
  return {{rows, columns}, type};
}
inline TensorType vector(std::int64_t count, DType type = DType::f32) { return {{count}, type}; }
inline TensorType absent() { return {}; }

inline std::string describe(const Row& row) {
  std::string text(row.op->name());
  for (const TensorType& type : row.inputs)
    text += fmt::format(" {}", type.shape.empty() ? "-" : to_string(type));
  return fmt::format("{} {}", text, row.what);
}

std::vector<Row> norm_rows();
std::vector<Row> elementwise_rows();
std::vector<Row> embedding_rows();
std::vector<Row> linear_rows();
std::vector<Row> attention_rows();

}  // namespace muster::testing
