#include "model/ops/addition.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> Addition::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[0] == inputs[1], "takes two tensors of one type");
  return {inputs[0]};
}

void Addition::differentiate(Differentiator& gradients, const Node& node) const {
  for (const ValueId input : node.inputs) gradients.contribute(input, gradients.gradient_of(node.outputs[0]));
}

}  // namespace muster
