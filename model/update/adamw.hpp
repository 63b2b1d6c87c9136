// AdamW with decoupled decay (Loshchilov, Hutter 2019), as PyTorch computes it, in f32:
//   g = gradient * gradient_scale                    (1/N and the clip factor)
//   w *= 1 - lr decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)
#pragma once

#include "model/update/optimizer.hpp"

namespace muster {

struct AdamWRule {
  float lr = 0, beta1 = 0.9f, beta2 = 0.95f, epsilon = 1e-8f, decay = 0;
};

class AdamW final : public Optimizer {
 public:
  AdamW(std::array<double, 2> betas, double epsilon, double decay)
      : betas_(betas), epsilon_(epsilon), decay_(decay) {}

  std::string_view name() const override { return "adamw"; }
  std::span<const std::string_view> slots() const override;
  double bytes_per_element() const override { return 28; }  // reads w, m, v, g, writes w, m, v
  std::array<double, 2> averages() const override { return betas_; }
  void update(NativeStream stream, const FlatKernels& kernels, double lr, const StepOutcome* outcome,
              const UpdateRange& range) const override;

 private:
  std::array<double, 2> betas_;
  double epsilon_, decay_;
};

}  // namespace muster
