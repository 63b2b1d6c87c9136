// A register of f32 for the CPU kernels: loads and stores of f32 and bf16 (whole or in part), fma, exp, GELU and sums
// in a fixed order.
//
// A loop runs its tail with the same functions on padded lanes (load_part, store_part), so body and tail round alike.
// bf16 is rounded exactly as core/dtype.hpp rounds it, on every instruction set (the hardware's own conversion flushes
// denormals). Products and sums are never fused but by fma().
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "core/dtype.hpp"
#include "model/ops/cpu/isa.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

inline constexpr std::int64_t lanes = MUSTER_AVX512 ? 16 : MUSTER_AVX2 ? 8 : 4;

// Arithmetic operators, comparisons and ?: work on lanes.
using Floats = float __attribute__((vector_size(lanes * 4)));
using Ints = std::int32_t __attribute__((vector_size(lanes * 4)));
using Words = std::uint32_t __attribute__((vector_size(lanes * 4)));
using Halves = std::uint16_t __attribute__((vector_size(lanes * 2)));

MUSTER_INLINE Floats broadcast(float value) { return value - Floats{}; }

namespace detail {
template <auto source, class V, int... i>
MUSTER_INLINE V shuffle_lanes(V a, V b, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, source(i)...);
}
template <int... i>
MUSTER_INLINE Ints lane_numbers(std::integer_sequence<int, i...>) {
  return Ints{i...};
}
}  // namespace detail

// Lane i of the result is lane source(i) of a and b, which are counted through.
template <auto source, class V>
MUSTER_INLINE V shuffle(V a, V b) {
  return detail::shuffle_lanes<source>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(V{}[0])>());
}

MUSTER_INLINE Ints lane_numbers() {
  return detail::lane_numbers(std::make_integer_sequence<int, static_cast<int>(lanes)>());
}

MUSTER_INLINE Floats load(const float* from) {
  Floats v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

MUSTER_INLINE void store(float* to, Floats v) { std::memcpy(to, &v, sizeof v); }

// bf16 bits to f32 and back. (gcc 12 converts many halves one by one.)
MUSTER_INLINE Floats widen(Halves bits) {
#if MUSTER_AVX512
  const auto words =
      reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(bits)));
#elif MUSTER_AVX2
  const auto words = reinterpret_cast<Words>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(bits)));
#elif MUSTER_NEON
  const auto words = reinterpret_cast<Words>(vmovl_u16(reinterpret_cast<uint16x4_t>(bits)));
#else
  const Words words = __builtin_convertvector(bits, Words);
#endif
  return reinterpret_cast<Floats>(words << 16);
}

MUSTER_INLINE Halves narrow(Floats v) {
  const Words u = reinterpret_cast<Words>(v);
  const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const Words kept = v == v ? rounded : (u >> 16) | 0x40u;
#if MUSTER_AVX2 && !MUSTER_AVX512
  const auto both = reinterpret_cast<__m256i>(kept);
  return reinterpret_cast<Halves>(
      _mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
#else
  return __builtin_convertvector(kept, Halves);
#endif
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

// The first `count` lanes, 0 <= count <= lanes; the other lanes are loaded as zero and never touched in memory.
MUSTER_INLINE Floats load_part(const float* from, std::int64_t count) {
#if MUSTER_AVX512
  return reinterpret_cast<Floats>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), from));
#elif MUSTER_AVX2
  const Ints mask = lane_numbers() < static_cast<std::int32_t>(count);
  return reinterpret_cast<Floats>(_mm256_maskload_ps(from, reinterpret_cast<__m256i>(mask)));
#else
  Floats v{};
  if (count > 0) std::memcpy(&v, from, static_cast<std::size_t>(count) * sizeof *from);
  return v;
#endif
}

MUSTER_INLINE Floats load_part(const bf16* from, std::int64_t count) {
#if MUSTER_AVX512
  return widen(
      reinterpret_cast<Halves>(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1u), from)));
#else
  Halves h{};
  if (count > 0) std::memcpy(&h, from, static_cast<std::size_t>(count) * sizeof *from);
  return widen(h);
#endif
}

MUSTER_INLINE void store_part(float* to, Floats v, std::int64_t count) {
#if MUSTER_AVX512
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1u), reinterpret_cast<__m512>(v));
#elif MUSTER_AVX2
  const Ints mask = lane_numbers() < static_cast<std::int32_t>(count);
  _mm256_maskstore_ps(to, reinterpret_cast<__m256i>(mask), reinterpret_cast<__m256>(v));
#else
  if (count > 0) std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof *to);
#endif
}

MUSTER_INLINE void store_part(bf16* to, Floats v, std::int64_t count) {
  const Halves h = narrow(v);
#if MUSTER_AVX512
  _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << count) - 1u), reinterpret_cast<__m256i>(h));
#else
  if (count > 0) std::memcpy(static_cast<void*>(to), &h, static_cast<std::size_t>(count) * sizeof *to);
#endif
}

// a b + c, rounded once where the instruction set has it.
MUSTER_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if MUSTER_AVX512
  return reinterpret_cast<Floats>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif MUSTER_AVX2
  return reinterpret_cast<Floats>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#elif MUSTER_NEON
  return reinterpret_cast<Floats>(vfmaq_f32(
      reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
#else
  return a * b + c;
#endif
}

MUSTER_INLINE Floats select(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }

// A NaN in b is passed on, one in a is not.
MUSTER_INLINE Floats max(Floats a, Floats b) {
#if MUSTER_AVX512
  return reinterpret_cast<Floats>(
      _mm512_maskz_max_ps(0xffff, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif MUSTER_AVX2
  return reinterpret_cast<Floats>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}
MUSTER_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }

MUSTER_INLINE Floats sqrt(Floats v) {
#if MUSTER_AVX512
  return reinterpret_cast<Floats>(_mm512_maskz_sqrt_ps(0xffff, reinterpret_cast<__m512>(v)));
#elif MUSTER_AVX2
  return reinterpret_cast<Floats>(_mm256_sqrt_ps(reinterpret_cast<__m256>(v)));
#else
  for (int i = 0; i < lanes; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

// Each lane beside the one `distance` away, a power of two.
template <int distance>
MUSTER_INLINE Floats exchanged(Floats v) {
  return shuffle<[](int i) { return i ^ distance; }>(v, v);
}

// Sum and largest of the lanes over a fixed tree: i with i + 8 (of 16 lanes), then 4, 2, 1.
MUSTER_INLINE float sum(Floats v) {
  if constexpr (lanes >= 16) v += exchanged<8>(v);
  if constexpr (lanes >= 8) v += exchanged<4>(v);
  v += exchanged<2>(v);
  return v[0] + v[1];
}

MUSTER_INLINE float largest(Floats v) {
  if constexpr (lanes >= 16) v = max(v, exchanged<8>(v));
  if constexpr (lanes >= 8) v = max(v, exchanged<4>(v));
  v = max(v, exchanged<2>(v));
  return v[0] > v[1] ? v[0] : v[1];
}

// In each group of four lanes: a0 b0 a1 b1, and a2 b2 a3 b3; a0 a1 b0 b1, and a2 a3 b2 b3. One instruction each.
template <class V>
MUSTER_INLINE V interleave_low(V a, V b) {
  return shuffle<[](int i) { return i % 2 * static_cast<int>(lanes) + i / 4 * 4 + i % 4 / 2; }>(a, b);
}
template <class V>
MUSTER_INLINE V interleave_high(V a, V b) {
  return shuffle<[](int i) { return i % 2 * static_cast<int>(lanes) + i / 4 * 4 + i % 4 / 2 + 2; }>(a, b);
}
template <class V>
MUSTER_INLINE V low_pairs(V a, V b) {
  return shuffle<[](int i) { return i % 4 / 2 * static_cast<int>(lanes) + i / 4 * 4 + i % 2; }>(a, b);
}
template <class V>
MUSTER_INLINE V high_pairs(V a, V b) {
  return shuffle<[](int i) { return i % 4 / 2 * static_cast<int>(lanes) + i / 4 * 4 + i % 2 + 2; }>(a, b);
}

namespace detail {
// Exchanges blocks of `distance` lanes between vectors of that distance.
template <int distance>
MUSTER_INLINE void exchange_blocks(Floats (&x)[lanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    if ((i & distance) != 0) continue;
    const Floats a = x[i], b = x[i + distance];
    constexpr int n = static_cast<int>(lanes);
    x[i] = shuffle<[](int j) { return (j & distance) != 0 ? n + j - distance : j; }>(a, b);
    x[i + distance] = shuffle<[](int j) { return (j & distance) != 0 ? n + j : j + distance; }>(a, b);
  }
}
}  // namespace detail

// x[i][j] becomes x[j][i]: blocks of four by four, then the blocks.
MUSTER_INLINE void transpose(Floats (&x)[lanes]) {
#pragma GCC unroll 4
  for (int i = 0; i < lanes; i += 4) {
    const Floats a = interleave_low(x[i], x[i + 1]), b = interleave_low(x[i + 2], x[i + 3]);
    const Floats c = interleave_high(x[i], x[i + 1]), d = interleave_high(x[i + 2], x[i + 3]);
    x[i] = low_pairs(a, b);
    x[i + 1] = high_pairs(a, b);
    x[i + 2] = low_pairs(c, d);
    x[i + 3] = high_pairs(c, d);
  }
  if constexpr (lanes >= 8) detail::exchange_blocks<4>(x);
  if constexpr (lanes >= 16) detail::exchange_blocks<8>(x);
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

// Phi(z) = (1 + erf(z / sqrt 2)) / 2. With x = |z| / sqrt 2, erfc(x) = t exp(-x^2 + P(t)), t = 1 / (1 + x / 2), within
// 1.2e-7 of itself everywhere (Press et al., Numerical Recipes, 6.2), so that nothing cancels where z is far below 0.
MUSTER_INLINE Floats normal_cdf(Floats z) {
  const Floats x = max(z, -z) * 0.70710678f;
  const Floats t = 1.0f / fma(x, broadcast(0.5f), broadcast(1.0f));
  Floats p = broadcast(0.17087277f);
  p = fma(p, t, broadcast(-0.82215223f));
  p = fma(p, t, broadcast(1.48851587f));
  p = fma(p, t, broadcast(-1.13520398f));
  p = fma(p, t, broadcast(0.27886807f));
  p = fma(p, t, broadcast(-0.18628806f));
  p = fma(p, t, broadcast(0.09678418f));
  p = fma(p, t, broadcast(0.37409196f));
  p = fma(p, t, broadcast(1.00002368f));
  p = fma(p, t, broadcast(-1.26551223f));
  const Floats tail = 0.5f * t * exp(fma(-x, x, p));
  return select(z < 0.0f, tail, 1.0f - tail);
}

// The exact form of model/ops/activation.hpp.
MUSTER_INLINE Floats gelu_erf(Floats z) { return z * normal_cdf(z); }

// Phi(z) + z phi(z), phi being the density of the normal distribution.
MUSTER_INLINE Floats gelu_erf_derivative(Floats z) {
  return fma(z, exp(z * z * -0.5f) * 0.39894228f, normal_cdf(z));
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
