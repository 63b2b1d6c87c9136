// Linear layer, optionally followed by GELU: the matrix products of the model.
//
//   z[n, o] = sum_k x[n, k] w[o, k] + bias[o]      y = z, or y = gelu(z) (activation.hpp)
//   dx = dz w        dw = dz^T x        dbias[o] = sum_n dz[n, o]
//
// x, w, y, dz, dx in f32 or bf16, sums in f32; bias, dw, dbias in f32. FLOPs: 2 N K O for each product. On GPUs a bias
// is rounded to y's type before it is added (cuda/linear.cu says why).
#pragma once

#include "model/ops/op.hpp"

namespace muster {

enum class Activation : std::uint8_t { none, gelu };

// Inputs: x [N, K], w [O, K], optionally bias f32 [O]. Outputs: y [N, O], and with gelu z [N, O] if `keep_z`.
class Linear final : public Op {
 public:
  Linear(Activation activation, bool keep_z) : activation_(activation), keep_z_(keep_z) {}
  Activation activation() const { return activation_; }
  std::string_view name() const override { return "linear"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  std::optional<Recipe> recipe(const Node& node, int output) const override;

 private:
  Activation activation_;
  bool keep_z_;
};

// Inputs: dz [N, O], w [O, K]. Output: dx [N, K] in dz's type.
class LinearInputGradient final : public Op {
 public:
  std::string_view name() const override { return "linear_input_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const override;
};

// Inputs: dz [N, O], x [N, K]. Outputs: dw f32 [O, K], and with `bias` dbias f32 [O]; both accumulated.
class LinearWeightGradient final : public Op {
 public:
  explicit LinearWeightGradient(bool bias) : bias_(bias) {}
  std::string_view name() const override { return "linear_weight_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const override;
  bool accumulates(int) const override { return true; }

 private:
  bool bias_;
};

}  // namespace muster
