#include "model/ops/norm.hpp"

#include "model/graph/differentiate.hpp"
#include "model/ops/expect.hpp"

namespace muster {

std::vector<TensorType> ResidualNorm::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 4, "takes residual, branch, weight, bias");
  const TensorType &residual = inputs[0], &branch = inputs[1];
  expect(*this, branch.shape.empty() || branch.shape == residual.shape, "branch has the residual's shape");
  expect(*this, inputs[2].dtype == DType::f32 && inputs[2].elements() == residual.columns(),
         "weight f32 [C]");
  std::vector<TensorType> outputs = {{residual.shape, output_}, {{residual.rows(), 2}, DType::f32}};
  if (!branch.shape.empty()) outputs.push_back(residual);
  return outputs;
}

void ResidualNorm::differentiate(Differentiator& gradients, const Node& node) const {
  const ValueId residual = node.inputs[0], branch = node.inputs[1], weight = node.inputs[2],
                bias = node.inputs[3];
  const bool fused = static_cast<bool>(branch);
  const ValueId sum = fused ? node.outputs[2] : residual;
  const ValueId d_sum = fused ? gradients.gradient_of(sum) : gradients.take_gradient_of(residual);
  const bool copy = fused && gradients.type(branch).dtype != gradients.type(residual).dtype;
  std::vector<ValueId> parameters = {{}, weight};
  if (bias) parameters.push_back(bias);
  const std::vector<ValueId> outputs =
      gradients.apply(std::make_shared<NormGradient>(kind_, static_cast<bool>(bias), copy),
                      {gradients.gradient_of(node.outputs[0]), d_sum, sum, node.outputs[1], weight},
                      "gradient", std::move(parameters));
  gradients.contribute(residual, outputs[0]);
  if (fused) gradients.contribute(branch, copy ? outputs.back() : outputs[0]);
}

std::optional<Recipe> ResidualNorm::recipe(const Node& node, int output) const {
  if (output != 0) return std::nullopt;
  const ValueId sum = node.inputs[1] ? node.outputs[2] : node.inputs[0];
  return Recipe{std::make_shared<Renormalize>(kind_, output_),
                {sum, node.outputs[1], node.inputs[2], node.inputs[3]}};
}

std::vector<TensorType> Renormalize::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 4, "takes s, statistics, weight, bias");
  return {{inputs[0].shape, output_}};
}

std::vector<TensorType> NormGradient::infer(std::span<const TensorType> inputs) const {
  expect(*this, inputs.size() == 5, "takes dy, d_sum, s, statistics, weight");
  const TensorType &dy = inputs[0], &s = inputs[2];
  expect(*this, dy.shape == s.shape, "dy and s of one shape");
  expect(*this, inputs[1].shape.empty() || inputs[1] == s, "d_sum is of s's type");
  const TensorType vector{{s.columns()}, DType::f32};
  std::vector<TensorType> outputs = {s, vector};
  if (bias_) outputs.push_back(vector);
  if (branch_) outputs.push_back({s.shape, dy.dtype});
  return outputs;
}

}  // namespace muster
