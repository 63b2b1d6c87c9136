#include "model/update/adamw.hpp"

#include "model/update/flat_kernels.hpp"

namespace muster {

std::span<const std::string_view> AdamW::slots() const {
  static constexpr std::string_view names[] = {"adam.m", "adam.v"};
  return names;
}

void AdamW::update(NativeStream stream, const FlatKernels& kernels, double lr, const StepOutcome* outcome,
                   const UpdateRange& range) const {
  AdamWRule rule;
  rule.lr = static_cast<float>(lr);
  rule.beta1 = static_cast<float>(betas_[0]);
  rule.beta2 = static_cast<float>(betas_[1]);
  rule.epsilon = static_cast<float>(epsilon_);
  rule.decay = range.decays ? static_cast<float>(decay_) : 0.0f;
  kernels.adamw(stream, rule, outcome, range.weights, range.state[0], range.state[1], range.gradient);
}

}  // namespace muster
