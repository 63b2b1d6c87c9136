// Philox for 16 counters at once: the words that core/philox.hpp gives, in the order of the elements that use
// them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/philox.hpp"
#include "model/ops/cpu/vector.hpp"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // as in vector.hpp

namespace muster::cpu {

// A random stream: all of the counter but its first word, and the key.
struct RandomStream {
  std::uint32_t slot = 0, step = 0, key = 0;
  std::uint64_t seed = 0;
};

// words[e] for e in [0, 64) is the word of element 4 first + e: word e % 4 of the counter first + e / 4.
// `words` is aligned to 64 bytes.
MUSTER_INLINE void philox_64(std::uint32_t first, const RandomStream& stream, std::uint32_t* words) {
  using Wide [[gnu::vector_size(64)]] = std::uint64_t;
  // Counters in the low halves of 64-bit lanes, where multiplication leaves both halves of its product; what
  // stands in the high halves is never read. Lane 4 l + j of the merged words holds counter 4 j + l, so that
  // they are brought into order inside 128-bit lanes alone.
  const auto multiply = [](Wide a, std::uint64_t factor) -> Wide {
#if MUSTER_AVX512
    return reinterpret_cast<Wide>(_mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a),
                                                         _mm512_set1_epi64(static_cast<long long>(factor))));
#else
    return (a & 0xffffffffu) * factor;
#endif
  };
  const Wide offsets[2] = {{0, 8, 1, 9, 2, 10, 3, 11}, {4, 12, 5, 13, 6, 14, 7, 15}};
  Wide c[2][4];
  for (int half = 0; half < 2; ++half) {
    c[half][0] = offsets[half] + first;
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
  const auto low = [](Words a, Words b) -> Words {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
  };
  const auto high = [](Words a, Words b) -> Words {
    return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  };
  const auto low_pairs = [](Words a, Words b) -> Words {
    return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
  };
  const auto high_pairs = [](Words a, Words b) -> Words {
    return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  };
  const Words ordered[4] = {
      low_pairs(low(w[0], w[1]), low(w[2], w[3])), high_pairs(low(w[0], w[1]), low(w[2], w[3])),
      low_pairs(high(w[0], w[1]), high(w[2], w[3])), high_pairs(high(w[0], w[1]), high(w[2], w[3]))};
  std::memcpy(words, ordered, sizeof ordered);
}

}  // namespace muster::cpu

#pragma GCC diagnostic pop
