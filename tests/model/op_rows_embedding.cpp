// Rows of the op table: embedding and its gradient.
#include "model/ops/embedding.hpp"
#include "tests/model/op_table.hpp"
#include "tests/reference/elementwise.hpp"

namespace muster::testing {
namespace {

struct Types {
  DType table, output;
};

Row lookup(std::int64_t n, std::int64_t rows, std::int64_t c, Types types, bool positional) {
  const auto columns = static_cast<std::size_t>(c);
  const std::int64_t places = 19;
  Row row{positional ? "with positions" : "",
          std::make_shared<Embedding>(types.output),
          {vector(n, DType::i32), matrix(rows, c, types.table)},
          {reference::random_integers(n, 1, 0, static_cast<int>(rows) - 1),
           reference::random_values(rows * c, 2)},
          [=](const Tensors& in) -> Tensors {
            Values y = reference::embedding(in[0], in[1], columns);
            if (positional) {
              const Values places_y = reference::embedding(in[2], in[3], columns);
              for (std::size_t i = 0; i < y.size(); ++i) y[i] += places_y[i];
            }
            return {y};
          },
          {exact}};
  if (positional) {
    row.inputs.push_back(vector(n, DType::i32));
    row.inputs.push_back(matrix(places, c, types.table));
    row.values.push_back(reference::random_integers(n, 3, 0, static_cast<int>(places) - 1));
    row.values.push_back(reference::random_values(places * c, 4));
  }
  return row;
}

// Integers of few bits: every order of summing gives the same exact sum, so that no rounding may show.
Row gradient(std::int64_t n, std::int64_t rows, std::int64_t c, DType type, bool integers) {
  const auto table_rows = static_cast<std::size_t>(rows), columns = static_cast<std::size_t>(c);
  const Values ids = reference::random_integers(n, 5, 0, static_cast<int>(rows) - 1);
  const Values dy = reference::rounded(
      integers ? reference::random_integers(n * c, 6, -9, 9) : reference::random_values(n * c, 6), type);
  Row row{
      integers ? "of integers" : "",
      std::make_shared<EmbeddingGradient>(rows),
      {vector(n, DType::i32), matrix(n, c, type)},
      {ids, dy},
      [=](const Tensors& in) -> Tensors { return {reference::embedding_gradient(in[0], in[1], table_rows)}; },
      {integers ? exact : Roundings{static_cast<double>(n)}}};
  if (rows * c <= 200)
    row.differences = {{Values(table_rows * columns)}, [=](const Tensors& variables) {
                         return reference::dot(dy, reference::embedding(ids, variables[0], columns));
                       }};
  return row;
}

}  // namespace

std::vector<Row> embedding_rows() {
  std::vector<Row> rows;
  for (const Types types :
       {Types{DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}})
    for (const bool positional : {false, true}) {
      rows.push_back(lookup(1, 1, 1, types, positional));
      rows.push_back(lookup(7, 5, 7, types, positional));
      rows.push_back(lookup(257, 300, 80, types, positional));
      rows.push_back(lookup(40, 3, 4097, types, positional));
    }
  for (const DType type : {DType::f32, DType::bf16})
    for (const bool integers : {false, true}) {
      rows.push_back(gradient(1, 1, 1, type, integers));
      rows.push_back(gradient(20, 11, 7, type, integers));
      rows.push_back(gradient(257, 5, 80, type, integers));
      rows.push_back(gradient(64, 1500, 33, type, integers));
      rows.push_back(gradient(40, 3, 4097, type, integers));
      rows.push_back(gradient(2600, 1900, 3, type, integers));  // more ids than a GPU's block sorts
      rows.push_back(gradient(1100, 2, 5, type, integers));
    }
  return rows;
}

}  // namespace muster::testing
