#include "model/update/outcome.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/update/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

// At stride 1, 2, 4, ...: the tree of comm/reduction.hpp.
double sum_over_tree(std::span<double> values) {
  for (std::size_t stride = 1; stride < values.size(); stride *= 2)
    for (std::size_t i = 0; i + stride < values.size(); i += 2 * stride) values[i] += values[i + stride];
  return values.empty() ? 0 : values.front();
}

}  // namespace

void add_report(NativeStream, LeafReport more, const double* loss, bool first, LeafReport* to) {
  if (first) *to = {};
  to->loss += more.loss + (loss != nullptr ? *loss : 0);
  to->targets += more.targets;
  to->stop |= more.stop;
  to->failed |= more.failed;
}

void finish_step(NativeStream, const OutcomeRule& rule, std::span<const LeafReport> leaves,
                 std::span<double> squares, StepOutcome* outcome) {
  StepOutcome result;
  result.updates = outcome->updates;
  std::vector<double> losses;
  for (const LeafReport& leaf : leaves) {
    losses.push_back(leaf.loss);
    result.targets += leaf.targets;
    result.stop |= leaf.stop;
    result.failed |= leaf.failed;
  }
  if (result.targets > 0) {
    const auto n = static_cast<double>(result.targets);
    result.loss = sum_over_tree(losses) / n;
    result.grad_norm = std::sqrt(sum_over_tree(squares)) / n;
  }
  result.skipped = result.targets == 0 || result.failed != 0 || !std::isfinite(result.loss) ||
                   !std::isfinite(result.grad_norm);
  result.clipped = result.skipped == 0 && rule.clip > 0 && result.grad_norm > rule.clip;
  if (result.skipped == 0) {
    const double factor = rule.clip > 0 ? std::min(1.0, rule.clip / (result.grad_norm + 1e-6)) : 1.0;
    result.gradient_scale = static_cast<float>(factor / static_cast<double>(result.targets));
    const auto updates = static_cast<double>(++result.updates);
    result.correction1 = 1 - std::pow(rule.averages[0], updates);
    result.correction2 = 1 - std::pow(rule.averages[1], updates);
  }
  *outcome = result;
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
