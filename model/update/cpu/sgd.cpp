#include "model/update/sgd.hpp"

#include "model/ops/cpu/elementwise.hpp"
#include "model/update/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

void sgd(NativeStream, const SgdRule& rule, const StepOutcome* outcome, std::span<float> weights,
         std::span<float> buffer, std::span<const float> gradients) {
  check(gradients.size() == weights.size() && (buffer.empty() || buffer.size() == weights.size()),
        "weights, momentum and gradients of one length");
  if (outcome->skipped != 0) return;
  const float rate = -rule.lr, momentum = rule.momentum, decay = rule.decay, scale = outcome->gradient_scale;
  const bool keeps = !buffer.empty(), nesterov = rule.nesterov;
  float *w = weights.data(), *b = buffer.data();
  const float* gradient = gradients.data();
  for_lanes_parallel(static_cast<std::int64_t>(weights.size()), [=](std::int64_t i, auto part) {
    const Floats weight = load(w + i, part);
    const Floats g = fma(broadcast(decay), weight, load(gradient + i, part) * scale);
    Floats direction = g;
    if (keeps) {
      const Floats sum = fma(broadcast(momentum), load(b + i, part), g);
      store(b + i, sum, part);
      direction = nesterov ? fma(broadcast(momentum), sum, g) : sum;
    }
    store(w + i, fma(broadcast(rate), direction, weight), part);
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
