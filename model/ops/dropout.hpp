// Dropout (Srivastava et al. 2014): y = x / (1 - p) with probability 1 - p, else 0.
//
// The choice for element e = (row within its sample) C + column is word e % 4 of
// philox((e / 4, first_slot + sample, step, random_key), seed); kept when uniform(word) >= p. Backward draws
// again: the gradient is the same op applied to dy.
#pragma once

#include "model/ops/op.hpp"

namespace muster {

// Input: x [N, C], `rows_per_sample` rows a sample. Output: like x; may take x's memory.
class Dropout final : public Op {
 public:
  Dropout(float probability, std::int64_t rows_per_sample)
      : probability_(probability), rows_per_sample_(rows_per_sample) {}
  float probability() const { return probability_; }
  std::int64_t rows_per_sample() const { return rows_per_sample_; }
  std::string_view name() const override { return "dropout"; }
  std::vector<TensorType> infer(std::span<const TensorType> inputs) const override;
  void differentiate(Differentiator& gradients, const Node& node) const override;
  int may_overwrite(int) const override { return 0; }

 private:
  float probability_;
  std::int64_t rows_per_sample_;
};

}  // namespace muster
