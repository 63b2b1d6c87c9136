#include "data/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace muster {
namespace {

constexpr std::uint64_t deal_stream = fnv1a("data.mix");
constexpr std::uint64_t order_stream = std::uint64_t{fnv1a("data.order")} << 32;

std::vector<std::uint64_t> quotas_of(std::span<const Sampler::Source> sources) {
  double sum = 0;
  for (const Sampler::Source& source : sources) {
    if (!(source.weight > 0) || !std::isfinite(source.weight))
      throw UserError("data.source: a weight of {} is not positive: correct it or leave the source out",
                      source.weight);
    sum += source.weight;
  }
  std::vector<std::uint64_t> quotas;
  std::vector<double> rest;
  for (const Sampler::Source& source : sources) {
    const double share = source.weight / sum * Sampler::block;
    quotas.push_back(static_cast<std::uint64_t>(share));
    rest.push_back(share - std::floor(share));
  }
  std::vector<std::size_t> order(sources.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return rest[a] > rest[b]; });
  std::uint64_t left = Sampler::block - std::accumulate(quotas.begin(), quotas.end(), std::uint64_t{0});
  for (std::size_t i = 0; left > 0; ++i, --left) ++quotas[order[i % order.size()]];
  for (std::size_t k = 0; k < quotas.size(); ++k)
    if (quotas[k] == 0)
      throw UserError(
          "data.source: a weight of {} among weights of {} gets no sample: raise it to at least {}",
          sources[k].weight, sum, sum / Sampler::block);
  return quotas;
}

}  // namespace

Sampler::Sampler(std::span<const Source> sources, std::uint64_t seed) : seed_(seed) {
  check(!sources.empty(), "a sampler needs a source");
  const std::vector<std::uint64_t> quotas = quotas_of(sources);
  for (std::size_t k = 0; k < sources.size(); ++k)
    sources_.push_back({.samples = sources[k].samples,
                        .quota = quotas[k],
                        .order = Permutation(sources[k].samples, seed, order_stream + k, 0)});
}

Sampler::Sample Sampler::at(std::uint64_t slot) {
  if (sources_.size() == 1) return nth(0, slot);
  if (const std::uint64_t number = slot / block; dealt_ != number) deal(number);
  const Turn turn = turns_[slot % block];
  return nth(turn.source, slot / block * sources_[turn.source].quota + turn.rank);
}

Sampler::Sample Sampler::nth(std::uint32_t source, std::uint64_t n) {
  State& state = sources_[source];
  if (const std::uint64_t epoch = n / state.samples; epoch != state.epoch) {
    state.epoch = epoch;
    state.order = Permutation(state.samples, seed_, order_stream + source, epoch);
  }
  return {source, state.epoch, state.order(n % state.samples)};
}

void Sampler::deal(std::uint64_t number) {
  const Permutation shuffle(block, seed_, deal_stream, number);
  std::vector<std::uint16_t> given(sources_.size(), 0);
  for (std::uint64_t i = 0; i < block; ++i) {
    std::uint64_t place = shuffle(i);
    std::uint16_t source = 0;
    while (place >= sources_[source].quota) place -= sources_[source++].quota;
    turns_[i] = {source, given[source]++};
  }
  dealt_ = number;
}

}  // namespace muster
