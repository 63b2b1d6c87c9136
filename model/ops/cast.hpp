// A tensor in another type: y = x, rounded to nearest where the type is narrower.
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Input: x, f32 or bf16. Output: the same numbers in `output`.
class Cast final : public Op {
 public:
  explicit Cast(DType output) : output_(output) {}
  std::string_view name() const override { return "cast"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  std::optional<Recipe> recipe(const Node& node, int output) const override;

 private:
  DType output_;
};

}  // namespace muster
