// The head of a language model: product with the (tied or own) table, softmax and cross-entropy, in chunks of
// rows, so that the N x V logits never exist at once.
//
//   logits[n, v] = sum_c x[n, c] w[v, c]
//   loss = sum over n with target[n] >= 0 of (log sum_v exp(logits[n, v]) - logits[n, target[n]])      (f64)
//   dlogits[n, v] = softmax(logits)[n, v] - [v = target[n]], zero for ignored rows
//   dx = dlogits w        dw = dlogits^T x
//
// v runs over the V classes in use; the rows of w beyond them are padding. The gradient of the sum with
// respect to itself is one, so dx and dw are computed on the way, while a chunk is in cache.
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Inputs: x [N, C], w [V padded, C], targets i32 [N] (negative: ignored). Outputs: loss f64 [1], summed over
// rows in a fixed order; when `training` also dx [N, C] and, appended by differentiation, dw f32 [V padded,
// C] (accumulated).
class LinearCrossEntropy final : public Op {
 public:
  LinearCrossEntropy(std::int64_t classes, bool training) : classes_(classes), training_(training) {}
  std::int64_t classes() const { return classes_; }
  bool training() const { return training_; }
  std::string_view name() const override { return "linear_cross_entropy"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  bool accumulates(int output) const override { return output == 2; }

 private:
  std::int64_t classes_;
  bool training_;
};

}  // namespace muster
