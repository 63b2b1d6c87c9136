// Embedding: rows of a table chosen by token ids, plus rows of a second table chosen by positions (learned
// positions).
//
//   y[n, :] = table[token[n], :] (+ position_table[position[n], :])          n in [0, N)
//   d table[v, :] = sum of dy[n, :] over n with token[n] = v, in ascending n  (the order makes the bits
//   reproducible)
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Inputs: tokens i32 [N], table [V, C], and optionally positions i32 [N], position_table [P, C]. Output: [N,
// C].
class Embedding final : public Op {
 public:
  explicit Embedding(DType output) : output_(output) {}
  std::string_view name() const override { return "embedding"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;

 private:
  DType output_;
};

// Inputs: ids i32 [N], dy [N, C]. Output: d table f32 [V, C], accumulated.
class EmbeddingGradient final : public Op {
 public:
  explicit EmbeddingGradient(std::int64_t rows) : rows_(rows) {}
  std::string_view name() const override { return "embedding_gradient"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  bool accumulates(int) const override { return true; }

 private:
  std::int64_t rows_;
};

}  // namespace muster
