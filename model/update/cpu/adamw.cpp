#include "model/update/adamw.hpp"

#include <cmath>

#include "model/ops/cpu/elementwise.hpp"
#include "model/update/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

void adamw(NativeStream, const AdamWRule& rule, const StepOutcome* outcome, std::span<float> weights,
           std::span<float> first, std::span<float> second, std::span<const float> gradients) {
  check(
      first.size() == weights.size() && second.size() == weights.size() && gradients.size() == weights.size(),
      "weights, moments and gradients of one length");
  if (outcome->skipped != 0) return;
  const float beta1 = rule.beta1, beta2 = rule.beta2, epsilon = rule.epsilon;
  const float rest1 = static_cast<float>(1.0 - static_cast<double>(beta1));
  const float rest2 = static_cast<float>(1.0 - static_cast<double>(beta2));
  const float keep = static_cast<float>(1.0 - static_cast<double>(rule.lr) * static_cast<double>(rule.decay));
  const float step = static_cast<float>(static_cast<double>(rule.lr) / outcome->correction1);
  const float root = static_cast<float>(1.0 / std::sqrt(outcome->correction2));
  const float scale = outcome->gradient_scale;
  float *w = weights.data(), *m = first.data(), *v = second.data();
  const float* gradient = gradients.data();
  for_lanes_parallel(static_cast<std::int64_t>(weights.size()), [=](std::int64_t i, auto part) {
    const Floats g = load(gradient + i, part) * scale;
    const Floats new_m = fma(broadcast(beta1), load(m + i, part), rest1 * g);
    const Floats new_v = fma(broadcast(beta2), load(v + i, part), rest2 * g * g);
    const Floats update = step * new_m / fma(sqrt(new_v), broadcast(root), broadcast(epsilon));
    store(m + i, new_m, part);
    store(v + i, new_v, part);
    store(w + i, fma(broadcast(keep), load(w + i, part), -update), part);
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
