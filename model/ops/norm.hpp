// LayerNorm and RMSNorm, fused with the residual addition before them.
//
//   s = residual (+ branch)
//   layer: mean = 1/C sum_c s[n,c],  rstd = 1/sqrt(1/C sum_c (s[n,c] - mean)^2 + epsilon),
//          y = (s - mean) rstd weight (+ bias)                            Ba, Kiros, Hinton 2016
//   rms:   mean = 0, rstd = 1/sqrt(1/C sum_c s[n,c]^2 + epsilon), y = s rstd weight      Zhang, Sennrich 2019
//   with h = (s - mean) rstd and g = dy weight:
//   ds = rstd (g - [layer: 1/C sum_c g] - h 1/C sum_c g h) (+ d_sum)
//   dweight[c] = sum_n dy[n,c] h[n,c]      dbias[c] = sum_n dy[n,c]
//
// The residual stream (residual, s, ds) has a type of its own: f32, also when y and branch are bf16, because
// its rounding errors would add up over the layers. Statistics and sums in f32, weights and their gradients
// f32.
#pragma once

#include "model/ops/op.hpp"

namespace muster {

enum class NormKind : std::uint8_t { layer, rms };

// Inputs: residual [N, C], branch [N, C] (optional), weight f32 [C], bias f32 [C] (optional).
// Outputs: y [N, C] of type `output`, statistics f32 [N, 2] (mean, rstd), and with a branch s [N, C] in
// residual's type.
class ResidualNorm final : public Op {
 public:
  ResidualNorm(NormKind kind, float epsilon, DType output)
      : kind_(kind), epsilon_(epsilon), output_(output) {}
  NormKind kind() const { return kind_; }
  float epsilon() const { return epsilon_; }
  std::string_view name() const override { return "residual_norm"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  std::optional<Recipe> recipe(const Node& node, int output) const override;

 private:
  NormKind kind_;
  float epsilon_;
  DType output_;
};

// Inputs: s [N, C], statistics, weight, bias (optional). Output: y, the same bits as ResidualNorm's.
class Renormalize final : public Op {
 public:
  Renormalize(NormKind kind, DType output) : kind_(kind), output_(output) {}
  NormKind kind() const { return kind_; }
  std::string_view name() const override { return "renormalize"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;

 private:
  NormKind kind_;
  DType output_;
};

// Inputs: dy [N, C], d_sum [N, C] (optional, stream type), s [N, C], statistics, weight.
// Outputs: ds [N, C] in s's type, dweight f32 [C], with `bias` dbias f32 [C], with `branch` a copy of ds in
// dy's type. dweight and dbias are accumulated; their sums run over fixed blocks of rows.
class NormGradient final : public Op {
 public:
  NormGradient(NormKind kind, bool bias, bool branch) : kind_(kind), bias_(bias), branch_(branch) {}
  NormKind kind() const { return kind_; }
  bool bias() const { return bias_; }
  std::string_view name() const override { return "norm_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  int may_overwrite(int output) const override { return output == 0 ? 1 : -1; }
  bool accumulates(int output) const override { return output == 1 || (bias_ && output == 2); }

 private:
  NormKind kind_;
  bool bias_;
  bool branch_;
};

}  // namespace muster
