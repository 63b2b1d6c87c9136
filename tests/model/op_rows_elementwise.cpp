// Rows of the op table: sums, activation functions, dropout, rotary positions.
#include "model/ops/activation.hpp"
#include "model/ops/addition.hpp"
#include "model/ops/cast.hpp"
#include "model/ops/dropout.hpp"
#include "model/ops/rope.hpp"
#include "tests/model/op_table.hpp"
#include "tests/reference/elementwise.hpp"

namespace muster::testing {
namespace {

Values mapped(const Values& x, double (*f)(double)) {
  Values y;
  for (const double value : x) y.push_back(f(value));
  return y;
}

Values product(const Values& a, const Values& b) {
  Values y;
  for (std::size_t i = 0; i < a.size(); ++i) y.push_back(a[i] * b[i]);
  return y;
}

void add_rows(std::vector<Row>& rows, std::int64_t n, std::int64_t c, DType type) {
  rows.push_back({"",
                  std::make_shared<Addition>(),
                  {matrix(n, c, type), matrix(n, c, type)},
                  {reference::random_values(n * c, 1), reference::random_values(n * c, 2)},
                  [](const Tensors& in) -> Tensors {
                    Values y;
                    for (std::size_t i = 0; i < in[0].size(); ++i) y.push_back(in[0][i] + in[1][i]);
                    return {y};
                  },
                  {exact}});
}

// A function of one number. Values of a normal distribution three wide reach both tails.
struct Function {
  std::shared_ptr<const Op> op, gradient;
  double (*value)(double);
  double (*slope)(double);
  Roundings roundings;
};

void function_rows(std::vector<Row>& rows, const Function& f, std::int64_t n, std::int64_t c, DType type) {
  const Values z = reference::rounded(reference::random_values(n * c, 3, 3), type);
  const Values dy = reference::rounded(reference::random_values(n * c, 4), type);
  rows.push_back({"",
                  f.op,
                  {matrix(n, c, type)},
                  {z},
                  [=](const Tensors& in) -> Tensors { return {mapped(in[0], f.value)}; },
                  {f.roundings}});
  Row gradient{"",
               f.gradient,
               {matrix(n, c, type), matrix(n, c, type)},
               {dy, z},
               [=](const Tensors& in) -> Tensors { return {product(in[0], mapped(in[1], f.slope))}; },
               {{2 * f.roundings.f32}}};
  if (n * c <= 100)
    gradient.differences = {
        {z}, [=](const Tensors& variables) { return reference::dot(dy, mapped(variables[0], f.value)); }};
  rows.push_back(gradient);
}

void cast_rows(std::vector<Row>& rows, std::int64_t n, std::int64_t c, DType type) {
  for (const DType to : {DType::f32, DType::bf16})
    rows.push_back({"",
                    std::make_shared<Cast>(to),
                    {matrix(n, c, type)},
                    {reference::random_values(n * c, 11)},
                    [](const Tensors& in) -> Tensors { return {in[0]}; },
                    {exact}});
}

void swiglu_rows(std::vector<Row>& rows, std::int64_t n, std::int64_t c, DType type) {
  const auto width = static_cast<std::size_t>(c);
  const Values gate_up = reference::rounded(reference::random_values(2 * n * c, 5, 3), type);
  const Values dy = reference::rounded(reference::random_values(n * c, 6), type);
  rows.push_back({"",
                  std::make_shared<SwiGlu>(),
                  {matrix(n, 2 * c, type)},
                  {gate_up},
                  [=](const Tensors& in) -> Tensors { return {reference::swiglu(in[0], width)}; },
                  {{4}}});
  Row gradient{
      "",
      std::make_shared<SwiGluGradient>(),
      {matrix(n, c, type), matrix(n, 2 * c, type)},
      {dy, gate_up},
      [=](const Tensors& in) -> Tensors { return {reference::swiglu_gradient(in[0], in[1], width)}; },
      {{8}}};
  if (n * c <= 100)
    gradient.differences = {{gate_up}, [=](const Tensors& variables) {
                              return reference::dot(dy, reference::swiglu(variables[0], width));
                            }};
  rows.push_back(gradient);
}

// Dropout is its own gradient: applied to dy it must give the derivative of its sum with dy.
void dropout_rows(std::vector<Row>& rows, std::int64_t samples, std::int64_t rows_per_sample, std::int64_t c,
                  float p, DType type) {
  const std::int64_t n = samples * rows_per_sample;
  const auto length = static_cast<std::size_t>(rows_per_sample * c);
  const std::uint32_t key = 77;
  const double exact_p = static_cast<double>(p);
  const StepScalars scalars{0x123456789abcdefull, 3, 41};
  const Values dy = reference::rounded(reference::random_values(n * c, 7), type);
  Row row{"p = " + std::to_string(p),
          std::make_shared<Dropout>(p, rows_per_sample),
          {matrix(n, c, type)},
          {dy},
          [=](const Tensors& in) -> Tensors {
            return {reference::dropout(in[0], exact_p, length, scalars, key)};
          },
          {{2}}};
  row.options.scalars = scalars;
  row.options.random_key = key;
  if (n * c <= 100)
    row.differences = {{Values(static_cast<std::size_t>(n * c), 1.0)}, [=](const Tensors& variables) {
                         return reference::dot(
                             dy, reference::dropout(variables[0], exact_p, length, scalars, key));
                       }};
  rows.push_back(row);
}

// Turning back is the gradient of turning.
void rope_rows(std::vector<Row>& rows, std::int64_t n, int heads, int size, std::int64_t others, DType type) {
  const std::int64_t c = heads * size + others;
  const auto head_count = static_cast<std::size_t>(heads), head_size = static_cast<std::size_t>(size);
  const double base = 10000;
  Values positions = reference::random_integers(n, 8, 0, 131071);
  positions[0] = 0;
  const Values x = reference::rounded(reference::random_values(n * c, 9), type);
  for (const bool inverse : {false, true}) {
    Row row{inverse ? "turning back" : "turning",
            std::make_shared<Rope>(heads, size, base, inverse),
            {matrix(n, c, type), vector(n, DType::i32)},
            {x, positions},
            [=](const Tensors& in) -> Tensors {
              return {reference::rope(in[0], in[1], head_count, head_size, base, inverse)};
            },
            {{3}}};
    if (inverse && n * c <= 200)
      row.differences = {{Values(x.size(), 1.0)}, [=](const Tensors& variables) {
                           return reference::dot(x, reference::rope(variables[0], positions, head_count,
                                                                    head_size, base, false));
                         }};
    rows.push_back(row);
  }
}

}  // namespace

std::vector<Row> elementwise_rows() {
  std::vector<Row> rows;
  struct Size {
    std::int64_t n, c;
  };
  const Function gelu{std::make_shared<Gelu>(),
                      std::make_shared<GeluGradient>(),
                      reference::gelu,
                      reference::gelu_slope,
                      {4}};
  // In the tail the exponent, some 8, is rounded three times, and its error is the relative one of the value.
  const Function gelu_erf{std::make_shared<GeluErf>(),
                          std::make_shared<GeluErfGradient>(),
                          reference::gelu_erf,
                          reference::gelu_erf_slope,
                          {24}};
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const Size size : {Size{1, 1}, {3, 7}, {1, 80}, {257, 33}, {70, 768}, {5, 4097}}) {
      add_rows(rows, size.n, size.c, type);
      function_rows(rows, gelu, size.n, size.c, type);
      function_rows(rows, gelu_erf, size.n, size.c, type);
      cast_rows(rows, size.n, size.c, type);
      swiglu_rows(rows, size.n, size.c, type);
    }
    for (const float p : {0.0f, 0.1f, 0.75f}) {
      dropout_rows(rows, 1, 1, 1, p, type);
      dropout_rows(rows, 3, 3, 7, p, type);
      dropout_rows(rows, 2, 257, 80, p, type);
    }
    rope_rows(rows, 1, 1, 2, 0, type);
    rope_rows(rows, 3, 3, 16, 5, type);
    rope_rows(rows, 257, 2, 80, 80, type);
    rope_rows(rows, 5, 8, 128, 0, type);
    rope_rows(rows, 2, 1, 256, 256, type);
  }
  return rows;
}

}  // namespace muster::testing
