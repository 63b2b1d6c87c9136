#include "model/ops/activation.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> Gelu::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 1, "takes z");
  return {inputs[0]};
}

std::vector<TensorType> GeluGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[0] == inputs[1], "takes dy and z of one type");
  return {inputs[0]};
}

std::vector<TensorType> GeluErf::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 1, "takes z");
  return {inputs[0]};
}

void GeluErf::differentiate(Differentiator& gradients, const Node& node) const {
  gradients.contribute(
      node.inputs[0],
      gradients.apply(std::make_shared<GeluErfGradient>(),
                      {gradients.gradient_of(node.outputs[0]), node.inputs[0]}, "gradient")[0]);
}

std::optional<Recipe> GeluErf::recipe(const Node& node, int) const {
  return Recipe{std::make_shared<GeluErf>(), node.inputs};
}

std::vector<TensorType> GeluErfGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[0] == inputs[1], "takes dy and z of one type");
  return {inputs[0]};
}

std::vector<TensorType> SwiGlu::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 1 && inputs[0].columns() % 2 == 0, "takes [N, 2F]");
  return {{{inputs[0].rows(), inputs[0].columns() / 2}, inputs[0].dtype}};
}

void SwiGlu::differentiate(Differentiator& gradients, const Node& node) const {
  gradients.contribute(
      node.inputs[0],
      gradients.apply(std::make_shared<SwiGluGradient>(),
                      {gradients.gradient_of(node.outputs[0]), node.inputs[0]}, "gradient")[0]);
}

std::optional<Recipe> SwiGlu::recipe(const Node& node, int) const {
  return Recipe{std::make_shared<SwiGlu>(), node.inputs};
}

std::vector<TensorType> SwiGluGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[1].columns() == 2 * inputs[0].columns(),
         "takes dy [N, F] and [N, 2F]");
  return {inputs[1]};
}

}  // namespace muster
