#include "model/ops/rope.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> Rope::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[1].dtype == DType::i32, "takes x and positions i32");
  expect(*this, inputs[1].elements() == inputs[0].rows(), "one position a row");
  expect(*this, head_size_ % 2 == 0 && rotated_heads_ * head_size_ <= inputs[0].columns(),
         "heads of even size in a row");
  return {inputs[0]};
}

void Rope::differentiate(Differentiator& gradients, const Node& node) const {
  gradients.contribute(
      node.inputs[0],
      gradients.apply(std::make_shared<Rope>(rotated_heads_, head_size_, base_, !inverse_),
                      {gradients.gradient_of(node.outputs[0]), node.inputs[1]}, "gradient")[0]);
}

}  // namespace muster
