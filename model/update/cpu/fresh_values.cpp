#include "model/update/fresh_values.hpp"

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/philox_vector.hpp"
#include "model/update/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

// ln x for normal x in (0, 1], by Cephes' polynomial (Moshier 1992): x = 2^e m with m in [sqrt 1/2, sqrt 2).
MUSTER_INLINE Floats log(Floats x) {
  const Words bits = reinterpret_cast<Words>(x) - 0x3f3504f3u;  // the bits of sqrt(1/2): e = 0 from there on
  const Ints exponent = reinterpret_cast<Ints>(bits) >> 23;
  const Floats mantissa = reinterpret_cast<Floats>((bits & 0x007fffffu) + 0x3f3504f3u);
  const Floats e = __builtin_convertvector(exponent, Floats);
  const Floats f = mantissa - 1.0f, f2 = f * f;
  Floats p = broadcast(7.0376836292e-2f);
  for (const float coefficient : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                  -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = fma(p, f, broadcast(coefficient));
  Floats result = fma(e, broadcast(-2.12194440e-4f), p * f * f2);
  result = fma(f2, broadcast(-0.5f), result);
  return fma(e, broadcast(0.693359375f), f + result);
}

// Cosine and sine of 2 pi u for u in [0, 1) with 24 bits: u - n/4 is exact.
MUSTER_INLINE void cos_sin_of_turns(Floats u, Floats& cosine, Floats& sine) {
  const Floats shifted = fma(u, broadcast(4.0f), broadcast(12582912.0f));
  const Ints quadrant = reinterpret_cast<Ints>(shifted);
  const Floats r = (u * 4.0f - (shifted - 12582912.0f)) * 1.57079633f, r2 = r * r;
  Floats s = fma(r2, broadcast(-1.9515295891e-4f), broadcast(8.3321608736e-3f));
  s = fma(s, r2, broadcast(-1.6666654611e-1f));
  s = fma(s * r2, r, r);
  Floats c = fma(r2, broadcast(2.443315711809948e-5f), broadcast(-1.388731625493765e-3f));
  c = fma(c, r2, broadcast(4.166664568298827e-2f));
  c = fma(c, r2 * r2, fma(r2, broadcast(-0.5f), broadcast(1.0f)));
  const Ints odd = (quadrant & 1) != 0;
  const Floats x = select(odd, s, c), y = select(odd, c, s);
  cosine = select(((quadrant + 1) & 2) != 0, -x, x);
  sine = select((quadrant & 2) != 0, -y, y);
}

}  // namespace

void fill_normal(std::span<float> x, std::int64_t first, float scale, std::uint32_t key, std::uint64_t seed) {
  check(first % 4 == 0, "random elements are drawn by fours");
  const RandomStream stream{0, 0, key, seed};
  parallel_ranges(static_cast<std::int64_t>(x.size()), 4096, [=](std::int64_t begin, std::int64_t end) {
    alignas(64) std::uint32_t words[64];
    for (std::int64_t i = begin; i < end; i += 64) {
      philox_64(static_cast<std::uint32_t>((first + i) / 4), stream, words);
      alignas(64) float normals[64];
      for (std::int64_t pair = 0; pair < 64; pair += 2 * lanes) {
        Words a, b;
        std::memcpy(&a, words + pair, sizeof a);
        std::memcpy(&b, words + pair + lanes, sizeof b);
        a >>= 8;
        b >>= 8;
        const Words even = shuffle<[](int lane) { return 2 * lane; }>(a, b);
        const Words odd = shuffle<[](int lane) { return 2 * lane + 1; }>(a, b);
        const Floats u = 1.0f - __builtin_convertvector(even, Floats) * 0x1p-24f;
        const Floats radius = scale * sqrt(-2.0f * log(u));
        Floats cosine, sine;
        cos_sin_of_turns(__builtin_convertvector(odd, Floats) * 0x1p-24f, cosine, sine);
        cosine *= radius;
        sine *= radius;
        constexpr int n = static_cast<int>(lanes);
        store(normals + pair, shuffle<[](int lane) { return lane % 2 * n + lane / 2; }>(cosine, sine));
        store(normals + pair + lanes,
              shuffle<[](int lane) { return lane % 2 * n + lane / 2 + n / 2; }>(cosine, sine));
      }
      std::copy_n(normals, std::min<std::int64_t>(64, end - i), x.data() + i);
    }
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
