#include "model/ops/dropout.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> Dropout::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 1 && inputs[0].rows() % rows_per_sample_ == 0, "takes whole samples");
  return {inputs[0]};
}

void Dropout::differentiate(Differentiator& gradients, const Node& node) const {
  gradients.contribute(node.inputs[0],
                       gradients.apply(std::make_shared<Dropout>(probability_, rows_per_sample_),
                                       {gradients.gradient_of(node.outputs[0])}, "gradient")[0]);
}

}  // namespace muster
