#include "model/update/sgd.hpp"

#include "model/update/flat_kernels.hpp"

namespace muster {

std::span<const std::string_view> Sgd::slots() const {
  static constexpr std::string_view names[] = {"sgd.momentum"};
  return std::span(names).first(momentum_ == 0 ? 0 : 1);
}

void Sgd::update(NativeStream stream, const FlatKernels& kernels, double lr, const StepOutcome* outcome,
                 const UpdateRange& range) const {
  SgdRule rule;
  rule.lr = static_cast<float>(lr);
  rule.momentum = static_cast<float>(momentum_);
  rule.decay = range.decays ? static_cast<float>(decay_) : 0.0f;
  rule.nesterov = nesterov_;
  kernels.sgd(stream, rule, outcome, range.weights, range.state[0], range.gradient);
}

}  // namespace muster
