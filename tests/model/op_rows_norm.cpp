// Rows of the op table: LayerNorm and RMSNorm.
#include "model/ops/norm.hpp"
#include "tests/model/op_table.hpp"
#include "tests/reference/norm.hpp"

namespace muster::testing {
namespace {

constexpr float epsilon = 1e-5f;
constexpr double exact_epsilon = static_cast<double>(epsilon);

struct Types {
  DType stream, branch;
};
// The stream keeps f32 beside bf16 branches; a stream in bf16 rounds what is summed.
constexpr Types all_types[] = {
    {DType::f32, DType::f32}, {DType::f32, DType::bf16}, {DType::bf16, DType::bf16}};

// Sixteen lanes sum a row, then a tree of four steps.
double chain(std::int64_t columns) { return static_cast<double>(columns) / 16 + 5; }

std::string kind_name(NormKind kind) { return kind == NormKind::layer ? "layer" : "rms"; }

Row forward(NormKind kind, std::int64_t n, std::int64_t c, Types types, bool branch, bool bias) {
  Row row;
  row.what = kind_name(kind);
  row.op = std::make_shared<ResidualNorm>(kind, epsilon, types.branch);
  row.inputs = {matrix(n, c, types.stream), branch ? matrix(n, c, types.branch) : absent(), vector(c),
                bias ? vector(c) : absent()};
  row.values = {reference::random_values(n * c, 1), reference::random_values(n * c, 2),
                reference::random_values(c, 3), reference::random_values(c, 4)};
  row.reference = [=](const Tensors& in) {
    Values s = in[0];
    if (branch)
      for (std::size_t i = 0; i < s.size(); ++i) s[i] = reference::rounded(s[i] + in[1][i], types.stream);
    const Values statistics = reference::statistics(kind, exact_epsilon, s, static_cast<std::size_t>(c));
    Tensors out = {reference::normalize(s, statistics, in[2], in[3]), statistics};
    if (branch) out.push_back(s);
    return out;
  };
  row.roundings = {{2 * chain(c) + 8}, {2 * chain(c) + 4}};
  if (branch) row.roundings.push_back(exact);
  return row;
}

Row again(NormKind kind, std::int64_t n, std::int64_t c, Types types, bool bias) {
  const Values s = reference::rounded(reference::random_values(n * c, 5), types.stream);
  Row row;
  row.what = kind_name(kind);
  row.op = std::make_shared<Renormalize>(kind, types.branch);
  row.inputs = {matrix(n, c, types.stream), matrix(n, 2, DType::f32), vector(c), bias ? vector(c) : absent()};
  row.values = {s, reference::statistics(kind, exact_epsilon, s, static_cast<std::size_t>(c)),
                reference::random_values(c, 6), reference::random_values(c, 7)};
  row.reference = [](const Tensors& in) -> Tensors {
    return {reference::normalize(in[0], in[1], in[2], in[3])};
  };
  row.roundings = {{4}};
  return row;
}

Row gradient(NormKind kind, std::int64_t n, std::int64_t c, Types types, bool d_sum, bool bias) {
  const auto columns = static_cast<std::size_t>(c);
  const bool copy = types.stream != types.branch;
  const Values s = reference::rounded(reference::random_values(n * c, 8), types.stream);
  Row row;
  row.what = kind_name(kind);
  row.op = std::make_shared<NormGradient>(kind, bias, copy);
  row.inputs = {matrix(n, c, types.branch), d_sum ? matrix(n, c, types.stream) : absent(),
                matrix(n, c, types.stream), matrix(n, 2, DType::f32), vector(c)};
  row.values = {reference::rounded(reference::random_values(n * c, 9), types.branch),
                reference::rounded(reference::random_values(n * c, 10), types.stream), s,
                reference::statistics(kind, exact_epsilon, s, columns),
                reference::rounded(reference::random_values(c, 11), DType::f32)};
  row.reference = [=](const Tensors& in) {
    Tensors out = reference::norm_gradient(kind, in[0], in[1], in[2], in[3], in[4]);
    if (!bias) out.pop_back();
    if (copy) out.push_back(out[0]);
    return out;
  };
  const double rows = static_cast<double>(n);
  // In a row of one, terms cancel that are 1/sqrt(epsilon) = 316 times what remains.
  const double sums = (2 * chain(c) + 12) * (c == 1 ? 316 : 1);
  row.roundings = {{sums}, {rows + 4}};
  if (bias) row.roundings.push_back({rows});
  if (copy) row.roundings.push_back({sums});
  if (n * c <= 400) {
    const Values dy = row.values[0], d = d_sum ? row.values[1] : Values();
    row.differences = {{s, row.values[4], Values(bias ? columns : 0)}, [=](const Tensors& variables) {
                         const Values& sum = variables[0];
                         const Values moments = reference::statistics(kind, exact_epsilon, sum, columns);
                         const Values y = reference::normalize(sum, moments, variables[1], variables[2]);
                         return reference::dot(dy, y) + reference::dot(d, sum);
                       }};
  }
  return row;
}

}  // namespace

std::vector<Row> norm_rows() {
  std::vector<Row> rows;
  struct Size {
    std::int64_t n, c;
  };
  for (const NormKind kind : {NormKind::layer, NormKind::rms})
    for (const Types types : all_types)
      for (const Size size : {Size{1, 7},
                              {5, 16},
                              {3, 80},
                              {257, 33},
                              {33, 768},
                              {2, 1028},
                              {2, 2052},
                              {2, 4097},
                              {2, 8196},
                              {1, 16388},
                              {4, 1}}) {
        const bool bias = kind == NormKind::layer, branch = size.n != 5;
        rows.push_back(forward(kind, size.n, size.c, types, branch, bias));
        rows.push_back(again(kind, size.n, size.c, types, bias));
        rows.push_back(gradient(kind, size.n, size.c, types, branch, bias));
      }
  return rows;
}

}  // namespace muster::testing
