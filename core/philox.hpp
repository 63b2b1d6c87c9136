// Philox 4x32-10, a counter-based random number generator: the same numbers on every backend, no state to
// save.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
// Muster's use: key = seed; counter = (element / 4, sample slot, step, hash of the op's scoped name), so that
// no number depends on ranks, threads, node numbers or padding.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace muster {

using Philox4 = std::array<std::uint32_t, 4>;

constexpr Philox4 philox(Philox4 counter, std::uint64_t seed) {
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * counter[0], b = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1) with 24 bits.
constexpr float uniform(std::uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// Dropout keeps an element when uniform(word) >= p, which is word >= dropped_below(p): uniform is exact, so that
// the comparison of integers decides alike.
inline std::uint32_t dropped_below(float p) {
  return static_cast<std::uint32_t>(std::ceil(static_cast<double>(p) * 0x1p24)) << 8;
}

}  // namespace muster
