#include "trainer/generate/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/philox.hpp"

namespace muster {

std::int32_t sample(std::span<const float> logits, const Sampling& options, std::uint32_t draw) {
  if (options.vocabulary > 0)
    logits = logits.first(std::min(logits.size(), static_cast<std::size_t>(options.vocabulary)));
  if (options.temperature == 0)
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());

  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(options.top_k)));

  const double highest = logits[static_cast<std::size_t>(order.front())];
  std::vector<double> weights;
  for (const std::int32_t token : order)
    weights.push_back(std::exp((logits[static_cast<std::size_t>(token)] - highest) / options.temperature));
  const double nucleus = options.top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  double reached = 0;
  std::size_t kept = 0;
  while (kept < weights.size() && (kept == 0 || reached < nucleus)) reached += weights[kept++];

  double left = reached * uniform(philox({draw, 0, 0, 0}, options.seed)[0]);
  std::size_t chosen = 0;
  while (chosen + 1 < kept && left >= weights[chosen]) left -= weights[chosen++];
  return order[chosen];
}

}  // namespace muster
