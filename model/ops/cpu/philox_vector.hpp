// Philox for a vector of counters at once: the words that core/philox.hpp gives, in the order of the elements that use
// them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/philox.hpp"
#include "model/ops/cpu/vector.hpp"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // as in vector.hpp

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

// A random stream: all of the counter but its first word, and the key.
struct RandomStream {
  std::uint32_t slot = 0, step = 0, key = 0;
  std::uint64_t seed = 0;
};

// words[e] for e in [0, 4 lanes) is the word of element 4 first + e: word e % 4 of the counter first + e / 4.
MUSTER_INLINE void philox_block(std::uint32_t first, const RandomStream& stream, std::uint32_t* words) {
  using Wide [[gnu::vector_size(lanes * 4)]] = std::uint64_t;
  // Counters in the low halves of 64-bit lanes, where multiplication leaves both halves of its product; what
  // stands in the high halves is never read.
  const auto multiply = [](Wide a, std::uint64_t factor) -> Wide {
#if MUSTER_AVX512
    return reinterpret_cast<Wide>(_mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a),
                                                         _mm512_set1_epi64(static_cast<long long>(factor))));
#elif MUSTER_AVX2
    return reinterpret_cast<Wide>(
        _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(static_cast<long long>(factor))));
#elif MUSTER_NEON
    return reinterpret_cast<Wide>(
        vmull_n_u32(vmovn_u64(reinterpret_cast<uint64x2_t>(a)), static_cast<std::uint32_t>(factor)));
#else
    return (a & 0xffffffffu) * factor;
#endif
  };
  // Lane 4 l + j of the merged words holds counter lanes / 4 * j + l, so that they are brought into order inside 128-bit
  // lanes alone; the merged lanes 2 i and 2 i + 1 come from the two halves' lanes i.
  constexpr auto counter_of = [](int lane) { return static_cast<int>(lanes) / 4 * (lane % 4) + lane / 4; };
  Wide c[2][4];
  for (int half = 0; half < 2; ++half) {
    Wide offsets{};
    for (int i = 0; i < lanes / 2; ++i) offsets[i] = static_cast<std::uint64_t>(counter_of(2 * i + half));
    c[half][0] = offsets + first;
    c[half][1] = Wide{} + stream.slot;
    c[half][2] = Wide{} + stream.step;
    c[half][3] = Wide{} + stream.key;
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(stream.seed),
                k1 = static_cast<std::uint32_t>(stream.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (auto& x : c) {
      const Wide a = multiply(x[0], 0xD2511F53u), b = multiply(x[2], 0xCD9E8D57u);
      x[0] = (b >> 32) ^ x[1] ^ k0;
      x[1] = b;
      x[2] = (a >> 32) ^ x[3] ^ k1;
      x[3] = a;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  Words w[4];
  for (int i = 0; i < 4; ++i) w[i] = reinterpret_cast<Words>((c[0][i] & 0xffffffffu) | (c[1][i] << 32));
  const Words a = interleave_low(w[0], w[1]), b = interleave_low(w[2], w[3]);
  const Words d = interleave_high(w[0], w[1]), e = interleave_high(w[2], w[3]);
  const Words ordered[4] = {low_pairs(a, b), high_pairs(a, b), low_pairs(d, e), high_pairs(d, e)};
  std::memcpy(words, ordered, sizeof ordered);
}

// The same for e in [0, 64).
MUSTER_INLINE void philox_64(std::uint32_t first, const RandomStream& stream, std::uint32_t* words) {
  for (std::uint32_t counter = 0; counter < 16; counter += static_cast<std::uint32_t>(lanes))
    philox_block(first + counter, stream, words + 4 * counter);
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA

#pragma GCC diagnostic pop
