// Activation functions of feed-forward layers.
//
//   gelu(z)      = z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))    Hendrycks, Gimpel 2016, GPT-2's tanh form
//   gelu_erf(z)  = z/2 (1 + erf(z / sqrt(2)))                       the same paper's exact form, BERT's
//   swiglu(g, u) = silu(g) u,  silu(g) = g / (1 + exp(-g))          Shazeer 2020
//
// Types f32 or bf16; arithmetic in f32.
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Input: z. Output: gelu(z). Appears where train.recompute drops the output of a linear layer's epilogue.
class Gelu final : public Op {
 public:
  std::string_view name() const override { return "gelu"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
};

// Inputs: dy, z. Output: dz = dy gelu'(z).
class GeluGradient final : public Op {
 public:
  std::string_view name() const override { return "gelu_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  int may_overwrite(int) const override { return 0; }
};

// Input: z. Output: gelu_erf(z).
class GeluErf final : public Op {
 public:
  std::string_view name() const override { return "gelu_erf"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  std::optional<Recipe> recipe(const Node& node, int output) const override;
};

// Inputs: dy, z. Output: dz = dy gelu_erf'(z).
class GeluErfGradient final : public Op {
 public:
  std::string_view name() const override { return "gelu_erf_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  int may_overwrite(int) const override { return 0; }
};

// Input: [N, 2F], gate in the first F columns, up in the last F. Output: silu(gate) up [N, F].
class SwiGlu final : public Op {
 public:
  std::string_view name() const override { return "swiglu"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  std::optional<Recipe> recipe(const Node& node, int output) const override;
};

// Inputs: dy [N, F], gate_up [N, 2F]. Output: d gate_up [N, 2F].
class SwiGluGradient final : public Op {
 public:
  std::string_view name() const override { return "swiglu_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  int may_overwrite(int) const override { return 1; }
};

}  // namespace muster
