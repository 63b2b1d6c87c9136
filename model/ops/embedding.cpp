#include "model/ops/embedding.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> Embedding::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 || inputs.size() == 4, "takes tokens and a table, or two of each");
  expect(*this, inputs[0].dtype == DType::i32, "tokens are i32");
  if (inputs.size() == 4) {
    expect(*this, inputs[2] == inputs[0], "one position a token");
    expect(*this, inputs[3].columns() == inputs[1].columns(), "tables of one width");
  }
  return {{{inputs[0].elements(), inputs[1].columns()}, output_}};
}

// Only the rows that are asked for are read, not the table.
Cost Embedding::cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const {
  const double tables = inputs.size() == 4 ? 2 : 1;
  const double rows = static_cast<double>(inputs[0].elements());
  return {0, tables * rows *
                     (4 + static_cast<double>(inputs[1].columns()) *
                              static_cast<double>(size_of(inputs[1].dtype))) +
                 static_cast<double>(outputs[0].bytes())};
}

void Embedding::differentiate(Differentiator& gradients, const Node& node) const {
  const ValueId dy = gradients.gradient_of(node.outputs[0]);
  for (std::size_t i = 0; i < node.inputs.size(); i += 2) {
    const ValueId table = node.inputs[i + 1];
    gradients.apply(std::make_shared<EmbeddingGradient>(gradients.type(table).rows()), {node.inputs[i], dy},
                    i == 0 ? "token_gradient" : "position_gradient", {table});
  }
}

std::vector<TensorType> EmbeddingGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[0].dtype == DType::i32, "takes ids i32 and dy");
  expect(*this, inputs[0].elements() == inputs[1].rows(), "one id a row");
  return {{{rows_, inputs[1].columns()}, DType::f32}};
}

}  // namespace muster
