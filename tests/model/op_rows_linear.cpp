// Rows of the op table: matrix products and the head. Their deeper tests are matmul_test.cpp and
// cuda_linear_test.cpp.
#include "model/ops/cross_entropy.hpp"
#include "model/ops/linear.hpp"
#include "tests/model/op_table.hpp"
#include "tests/reference/elementwise.hpp"
#include "tests/reference/linear.hpp"

namespace muster::testing {
namespace {

struct Size {
  std::int64_t n, k, o;
};
constexpr Size sizes[] = {{1, 7, 5}, {5, 16, 3}, {257, 80, 33}, {33, 96, 130}};

// With integers of few bits every product and sum is exact, so that no rounding may show.
Values drawn(std::int64_t count, std::uint64_t seed, bool integers, DType type) {
  return reference::rounded(
      integers ? reference::random_integers(count, seed, -4, 4) : reference::random_values(count, seed),
      type);
}

void forward(std::vector<Row>& rows, Size s, DType type, bool bias, Activation activation, bool keep_z,
             bool integers) {
  const auto k = static_cast<std::size_t>(s.k);
  const bool gelu = activation == Activation::gelu;
  // In bf16, y may be computed from z before or after z was rounded.
  // A GPU rounds the bias, too, which is no larger than what it is added to.
  const double bias_rounded = bias && type == DType::bf16 ? 0.5 : 0;
  const Roundings sums = integers ? exact : Roundings{static_cast<double>(s.k) + 4, bias_rounded};
  const Roundings activated{static_cast<double>(s.k) + 8, type == DType::bf16 ? 1.2 : 0};
  Row row{gelu ? "gelu" : "",
          std::make_shared<Linear>(activation, keep_z),
          {matrix(s.n, s.k, type), matrix(s.o, s.k, type), bias ? vector(s.o) : absent()},
          {drawn(s.n * s.k, 1, integers, type), drawn(s.o * s.k, 2, integers, type),
           drawn(s.o, 3, integers, DType::f32)},
          [=](const Tensors& in) -> Tensors {
            const Values z = reference::linear(in[0], in[1], in[2], k);
            if (!gelu) return {z};
            Values y;
            for (const double value : z) y.push_back(reference::gelu(value));
            return keep_z ? Tensors{y, z} : Tensors{y};
          },
          {gelu ? activated : sums}};
  if (gelu && keep_z) row.roundings.push_back(sums);
  rows.push_back(row);
}

void gradients(std::vector<Row>& rows, Size s, DType type, bool bias, bool integers) {
  const auto n = static_cast<std::size_t>(s.n), k = static_cast<std::size_t>(s.k);
  const auto o = static_cast<std::size_t>(s.o);
  const Values dz = drawn(s.n * s.o, 4, integers, type), x = drawn(s.n * s.k, 5, integers, type);
  const Values w = drawn(s.o * s.k, 6, integers, type);
  const std::string what = integers ? "of integers" : "";
  Row input{what,
            std::make_shared<LinearInputGradient>(),
            {matrix(s.n, s.o, type), matrix(s.o, s.k, type)},
            {dz, w},
            [=](const Tensors& in) -> Tensors {
              return {reference::linear(in[0], reference::transposed(in[1], k), {}, o)};
            },
            {integers ? exact : Roundings{static_cast<double>(s.o)}}};
  const Roundings sums = integers ? exact : Roundings{static_cast<double>(s.n)};
  Row weight{what,
             std::make_shared<LinearWeightGradient>(bias),
             {matrix(s.n, s.o, type), matrix(s.n, s.k, type)},
             {dz, x},
             [=](const Tensors& in) -> Tensors {
               const Values t = reference::transposed(in[0], o);
               const Values dw = reference::linear(t, reference::transposed(in[1], k), {}, n);
               return bias ? Tensors{dw, reference::linear(t, Values(n, 1.0), {}, n)} : Tensors{dw};
             },
             {sums}};
  if (bias) weight.roundings.push_back(sums);
  if (s.n * s.k * s.o <= 300) {
    input.differences = {{x}, [=](const Tensors& variables) {
                           return reference::dot(dz, reference::linear(variables[0], w, {}, k));
                         }};
    weight.differences = {{w, Values(bias ? o : 0)}, [=](const Tensors& variables) {
                            return reference::dot(dz, reference::linear(x, variables[0], variables[1], k));
                          }};
  }
  rows.push_back(input);
  rows.push_back(weight);
}

// 30% of the rows are ignored.
void head(std::vector<Row>& rows, std::int64_t n, std::int64_t c, std::int64_t classes, std::int64_t padded,
          DType type, bool training) {
  const auto width = static_cast<std::size_t>(c), used = static_cast<std::size_t>(classes);
  const Values x = reference::rounded(reference::random_values(n * c, 7), type);
  const Values w = reference::rounded(reference::random_values(padded * c, 8, 0.5), type);
  Values targets = reference::random_integers(n, 9, 0, static_cast<int>(classes) - 1);
  for (std::size_t i = 0; i < targets.size(); ++i)
    if (i % 10 < 3 && n > 1) targets[i] = -1;
  Row row{training ? "training" : "",
          std::make_shared<LinearCrossEntropy>(classes, training),
          {matrix(n, c, type), matrix(padded, c, type), vector(n, DType::i32)},
          {x, w, targets},
          [=](const Tensors& in) {
            Tensors out = reference::linear_cross_entropy(in[0], in[1], in[2], width, used);
            if (!training) out.resize(1);
            return out;
          },
          {}};
  // Logits and their gradient are held in the type of x.
  const double stored = type == DType::bf16 ? 4 : 0;
  const double chain = static_cast<double>(c) + static_cast<double>(padded) / 16 + 16;
  row.roundings = {{chain, stored}};
  if (training) {
    row.outputs =
        std::vector<TensorType>{vector(1, DType::f64), matrix(n, c, type), matrix(padded, c, DType::f32)};
    row.roundings.push_back({chain + static_cast<double>(padded), stored});
    row.roundings.push_back({chain + static_cast<double>(n), stored});
    if (n * c <= 100)
      row.differences = {{{}, x, w}, [=](const Tensors& variables) {
                           return reference::linear_cross_entropy(variables[1], variables[2], targets, width,
                                                                  used)[0][0];
                         }};
  }
  rows.push_back(row);
}

}  // namespace

std::vector<Row> linear_rows() {
  std::vector<Row> rows;
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const Size size : sizes)
      for (const bool integers : {false, true}) {
        forward(rows, size, type, true, Activation::none, false, integers);
        forward(rows, size, type, false, Activation::none, false, integers);
        forward(rows, size, type, true, Activation::gelu, true, integers);
        forward(rows, size, type, true, Activation::gelu, false, integers);
        gradients(rows, size, type, true, integers);
        gradients(rows, size, type, false, integers);
      }
    for (const bool training : {false, true}) {
      head(rows, 1, 7, 5, 128, type, training);
      head(rows, 12, 8, 11, 11, type, training);
      head(rows, 257, 80, 250, 256, type, training);
    }
    // A row of logits is as large as the shared memory that a GPU gives a block unasked.
    const auto whole = static_cast<std::int64_t>((48 << 10) / size_of(type));
    head(rows, 3, 40, whole - 7, whole, type, true);
  }
  return rows;
}

}  // namespace muster::testing
