// Stochastic gradient descent with momentum, as PyTorch computes it without dampening, in f32:
//   g = gradient * gradient_scale + decay w          (1/N and the clip factor; the decay is part of the gradient)
//   b = momentum b + g;  d = nesterov ? g + momentum b : b
//   w -= lr d
// Without momentum d = g, and nothing is kept.
#pragma once

#include "model/update/optimizer.hpp"

namespace muster {

struct SgdRule {
  float lr = 0, momentum = 0, decay = 0;
  bool nesterov = false;
};

class Sgd final : public Optimizer {
 public:
  Sgd(double momentum, bool nesterov, double decay)
      : momentum_(momentum), nesterov_(nesterov), decay_(decay) {}

  std::string_view name() const override { return "sgd"; }
  std::span<const std::string_view> slots() const override;
  double bytes_per_element() const override {
    return momentum_ == 0 ? 12 : 20;  // reads w, b, g, writes w, b
  }
  void update(NativeStream stream, const FlatKernels& kernels, double lr, const StepOutcome* outcome,
              const UpdateRange& range) const override;

 private:
  double momentum_;
  bool nesterov_;
  double decay_;
};

}  // namespace muster
