// Sum of two tensors of the same type: y = a + b, in f32 arithmetic. Gradients of a value that is used twice
// meet here.
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Inputs: a, b. Output: like a; may take a's memory.
class Addition final : public Op {
 public:
  std::string_view name() const override { return "add"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  int may_overwrite(int) const override { return 0; }
};

}  // namespace muster
