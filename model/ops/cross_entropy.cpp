#include "model/ops/cross_entropy.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> LinearCrossEntropy::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 3, "takes x, w, targets");
  expect(*this, inputs[0].dtype == inputs[1].dtype && inputs[0].columns() == inputs[1].columns(),
         "x [N, C] and w [V, C] of one type");
  expect(*this, inputs[2].dtype == DType::i32 && inputs[2].elements() == inputs[0].rows(),
         "one target i32 a row");
  expect(*this, classes_ > 0 && classes_ <= inputs[1].rows(), "classes within the table");
  const TensorType loss{{1}, DType::f64};
  if (!training_) return {loss};
  return {loss, inputs[0]};
}

Cost LinearCrossEntropy::cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const {
  Cost cost = Op::cost(inputs, outputs);
  cost.matrix_flops =
      (training_ ? 6.0 : 2.0) * static_cast<double>(inputs[0].elements()) * static_cast<double>(classes_);
  return cost;
}

void LinearCrossEntropy::differentiate(Differentiator& gradients, const Node& node) const {
  gradients.contribute(node.inputs[0], node.outputs[1]);
  gradients.write_in_forward(node.inputs[1]);
}

}  // namespace muster
