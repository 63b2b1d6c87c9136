#include "model/ops/cast.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> Cast::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 1, "takes x");
  return {{inputs[0].shape, output_}};
}

void Cast::differentiate(Differentiator& gradients, const Node& node) const {
  gradients.contribute(node.inputs[0],
                       gradients.apply(std::make_shared<Cast>(gradients.type(node.inputs[0]).dtype),
                                       {gradients.gradient_of(node.outputs[0])}, "gradient")[0]);
}

std::optional<Recipe> Cast::recipe(const Node& node, int) const {
  return Recipe{std::make_shared<Cast>(output_), node.inputs};
}

}  // namespace muster
