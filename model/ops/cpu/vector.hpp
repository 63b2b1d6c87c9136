// Sixteen f32 lanes for the CPU kernels: loads and stores of f32 and bf16 (whole or in part), fma, exp, GELU
// and sums in a fixed order.
//
// A loop runs its tail with the same functions on padded lanes (load_part, store_part), so body and tail
// round alike. Everything is always inlined: files compiled for different instruction sets may include this
// header. bf16 is rounded exactly as core/dtype.hpp rounds it, on every instruction set (the hardware's own
// conversion flushes denormals).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/dtype.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define MUSTER_AVX512 1
#include <immintrin.h>
#else
#define MUSTER_AVX512 0
#endif

#define MUSTER_INLINE [[gnu::always_inline]] inline

namespace muster::cpu {

inline constexpr std::int64_t lanes = 16;

// Arithmetic operators, comparisons and ?: work on lanes.
using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));
using Words = std::uint32_t __attribute__((vector_size(64)));
using Halves = std::uint16_t __attribute__((vector_size(32)));

MUSTER_INLINE Floats broadcast(float value) { return value - Floats{}; }

MUSTER_INLINE Floats load(const float* from) {
  Floats v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

MUSTER_INLINE void store(float* to, Floats v) { std::memcpy(to, &v, sizeof v); }

// bf16 bits to f32 and back.
MUSTER_INLINE Floats widen(Halves bits) {
#if MUSTER_AVX512  // gcc 12 converts the halves one by one
  const Words words =
      reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(bits)));
#else
  const Words words = __builtin_convertvector(bits, Words);
#endif
  return reinterpret_cast<Floats>(words << 16);
}

MUSTER_INLINE Halves narrow(Floats v) {
  const Words u = reinterpret_cast<Words>(v);
  const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return __builtin_convertvector(v == v ? rounded : (u >> 16) | 0x40u, Halves);
}

MUSTER_INLINE Floats load(const bf16* from) {
  Halves h;
  std::memcpy(&h, from, sizeof h);
  return widen(h);
}

MUSTER_INLINE void store(bf16* to, Floats v) {
  const Halves h = narrow(v);
  std::memcpy(static_cast<void*>(to), &h, sizeof h);
}

// The first `count` lanes, 0 <= count <= 16; the other lanes are loaded as zero and never touched in memory.
MUSTER_INLINE Floats load_part(const float* from, std::int64_t count) {
#if MUSTER_AVX512
  return reinterpret_cast<Floats>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), from));
#else
  Floats v{};
  std::memcpy(&v, from, static_cast<std::size_t>(count) * sizeof *from);
  return v;
#endif
}

MUSTER_INLINE Floats load_part(const bf16* from, std::int64_t count) {
#if MUSTER_AVX512
  return widen(
      reinterpret_cast<Halves>(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1u), from)));
#else
  Halves h{};
  std::memcpy(&h, from, static_cast<std::size_t>(count) * sizeof *from);
  return widen(h);
#endif
}

MUSTER_INLINE void store_part(float* to, Floats v, std::int64_t count) {
#if MUSTER_AVX512
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1u), reinterpret_cast<__m512>(v));
#else
  std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof *to);
#endif
}

MUSTER_INLINE void store_part(bf16* to, Floats v, std::int64_t count) {
  const Halves h = narrow(v);
#if MUSTER_AVX512
  _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << count) - 1u), reinterpret_cast<__m256i>(h));
#else
  std::memcpy(static_cast<void*>(to), &h, static_cast<std::size_t>(count) * sizeof *to);
#endif
}

// a b + c, rounded once where the processor has FMA.
MUSTER_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if MUSTER_AVX512
  return reinterpret_cast<Floats>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#else
  return a * b + c;
#endif
}

MUSTER_INLINE Floats select(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }

// A NaN in b is passed on, one in a is not.
MUSTER_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
MUSTER_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }

MUSTER_INLINE Floats sqrt(Floats v) {
#if MUSTER_AVX512
  return reinterpret_cast<Floats>(_mm512_maskz_sqrt_ps(0xffff, reinterpret_cast<__m512>(v)));
#else
  for (int i = 0; i < lanes; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

// Sum and largest of the lanes over a fixed tree: i with i + 8, then 4, 2, 1.
MUSTER_INLINE float sum(Floats v) {
  v += __builtin_shuffle(v, Ints{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
  v += __builtin_shuffle(v, Ints{4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3});
  v += __builtin_shuffle(v, Ints{2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1});
  return v[0] + v[1];
}

MUSTER_INLINE float largest(Floats v) {
  v = max(v, __builtin_shuffle(v, Ints{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));
  v = max(v, __builtin_shuffle(v, Ints{4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3}));
  v = max(v, __builtin_shuffle(v, Ints{2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1}));
  return v[0] > v[1] ? v[0] : v[1];
}

// e^x within 2 units in the last place. Zero below -87.3 and infinite above 88.7, so that no denormal is ever
// made (they cost a hundred cycles); NaN stays NaN.
MUSTER_INLINE Floats exp(Floats x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 leaves n in the low bits of the sum.
  const Floats shifted = fma(x, broadcast(1.44269504f), broadcast(12582912.0f));
  const Floats n = shifted - 12582912.0f;
  Floats r = fma(n, broadcast(-0.693359375f), x);  // ln 2 in two parts: the first product is exact
  r = fma(n, broadcast(2.12194440e-4f), r);
  // e^r - 1 - r by Cephes' polynomial (Moshier 1992).
  Floats p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  const Floats scaled =
      reinterpret_cast<Floats>(reinterpret_cast<Words>(p) + (reinterpret_cast<Words>(shifted) << 23));
  const Floats bounded = select(x <= 88.7f, scaled, x * std::numeric_limits<float>::infinity());
  return select(x < -87.3f, Floats{}, bounded);
}

// 1 / (1 + e^-x)
MUSTER_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exp(-x)); }

// The tanh form of model/ops/activation.hpp, by (1 + tanh u) / 2 = sigmoid(2u), which loses no digits where
// tanh u is near -1.
MUSTER_INLINE Floats gelu(Floats z) {
  const Floats twice_u = z * fma(z * z, broadcast(1.5957691216f * 0.044715f), broadcast(1.5957691216f));
  return z * sigmoid(twice_u);
}

MUSTER_INLINE Floats gelu_derivative(Floats z) {
  const Floats z2 = z * z;
  const Floats twice_u = z * fma(z2, broadcast(1.5957691216f * 0.044715f), broadcast(1.5957691216f));
  const Floats slope = fma(z2, broadcast(3 * 1.5957691216f * 0.044715f), broadcast(1.5957691216f));
  // 1 - s is e s; the bound keeps e finite where s vanishes anyway.
  const Floats e = exp(min(broadcast(80.0f), -twice_u));
  const Floats s = 1.0f / (1.0f + e);
  return fma(z * slope, s * (e * s), s);
}

}  // namespace muster::cpu
