#include "model/ops/linear.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/activation.hpp"
#include "model/ops/expect.hpp"

namespace muster {
namespace {

Cost product(const Op& op, std::int64_t n, std::int64_t k, std::int64_t o, std::span<const TensorType> inputs,
             std::span<const TensorType> outputs) {
  Cost cost = op.Op::cost(inputs, outputs);
  cost.matrix_flops = 2.0 * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(o);
  return cost;
}

}  // namespace

std::vector<TensorType> Linear::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() >= 2, "takes x, w and optionally a bias");
  const TensorType &x = inputs[0], &w = inputs[1];
  expect(*this, x.dtype == w.dtype && x.columns() == w.columns(), "x [N, K] and w [O, K] of one type");
  if (inputs.size() > 2 && !inputs[2].shape.empty())
    expect(*this, inputs[2].dtype == DType::f32 && inputs[2].elements() == w.rows(), "bias f32 [O]");
  const TensorType y{{x.rows(), w.rows()}, x.dtype};
  if (activation_ == Activation::gelu && keep_z_) return {y, y};
  return {y};
}

Cost Linear::cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const {
  return product(*this, inputs[0].rows(), inputs[0].columns(), inputs[1].rows(), inputs, outputs);
}

void Linear::differentiate(Differentiator& gradients, const Node& node) const {
  const ValueId x = node.inputs[0], w = node.inputs[1];
  ValueId dz = gradients.gradient_of(node.outputs[0]);
  if (activation_ == Activation::gelu)
    dz = gradients.apply(std::make_shared<GeluGradient>(), {dz, node.outputs[1]}, "gelu_gradient")[0];
  const bool bias = node.inputs.size() > 2 && node.inputs[2];
  std::vector<ValueId> parameters = {w};
  if (bias) parameters.push_back(node.inputs[2]);
  // dx before dw: it is on the way to the next layer's gradient, and dz dies with dw.
  if (gradients.wants_gradient(x))
    gradients.contribute(
        x, gradients.apply(std::make_shared<LinearInputGradient>(), {dz, w}, "input_gradient")[0]);
  gradients.apply(std::make_shared<LinearWeightGradient>(bias), {dz, x}, "weight_gradient", parameters);
}

std::optional<Recipe> Linear::recipe(const Node& node, int output) const {
  if (activation_ != Activation::gelu || !keep_z_ || output != 0) return std::nullopt;
  return Recipe{std::make_shared<Gelu>(), {node.outputs[1]}};
}

std::vector<TensorType> LinearInputGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[0].columns() == inputs[1].rows(),
         "takes dz [N, O] and w [O, K]");
  return {{{inputs[0].rows(), inputs[1].columns()}, inputs[0].dtype}};
}

Cost LinearInputGradient::cost(std::span<const TensorType> inputs,
                               std::span<const TensorType> outputs) const {
  return product(*this, inputs[0].rows(), inputs[1].columns(), inputs[1].rows(), inputs, outputs);
}

std::vector<TensorType> LinearWeightGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 2 && inputs[0].rows() == inputs[1].rows(), "takes dz [N, O] and x [N, K]");
  const TensorType dw{{inputs[0].columns(), inputs[1].columns()}, DType::f32};
  if (bias_) return {dw, {{inputs[0].columns()}, DType::f32}};
  return {dw};
}

Cost LinearWeightGradient::cost(std::span<const TensorType> inputs,
                                std::span<const TensorType> outputs) const {
  return product(*this, inputs[0].rows(), inputs[1].columns(), inputs[0].columns(), inputs, outputs);
}

}  // namespace muster
