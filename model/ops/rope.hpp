// Rotary positions (Su et al. 2021, "RoFormer"), in the half-split pairing of Llama.
//
// Each of the first `rotated_heads` heads of D columns in a row is turned by its position p:
// for i in [0, D/2)
//   angle = p base^(-2 i / D),   (a, b) = (x[i], x[i + D/2])
//   y[i] = a cos(angle) - b sin(angle),   y[i + D/2] = b cos(angle) + a sin(angle)
// The other columns (values) are copied. The gradient turns back by the same angle. Angles in f64, arithmetic
// in f32.
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Inputs: x [N, W], positions i32 [N]. Output: like x; may take x's memory.
class Rope final : public Op {
 public:
  Rope(int rotated_heads, int head_size, double base, bool inverse)
      : rotated_heads_(rotated_heads), head_size_(head_size), base_(base), inverse_(inverse) {}
  int rotated_heads() const { return rotated_heads_; }
  int head_size() const { return head_size_; }
  double base() const { return base_; }
  bool inverse() const { return inverse_; }
  std::string_view name() const override { return "rope"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  int may_overwrite(int) const override { return 0; }

 private:
  int rotated_heads_;
  int head_size_;
  double base_;
  bool inverse_;
};

}  // namespace muster
