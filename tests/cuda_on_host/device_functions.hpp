// What CUDA C++ gives a kernel without an include, for kernels that a host compiler reads: indices, barriers, shuffles,
// atomics and arithmetic. Arithmetic that the device approximates is exact here.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <numbers>
#include <type_traits>

#include "tests/cuda_on_host/kernel_threads.hpp"

// Each thread that runs blocks has shared memory of its own; at block scope thread_local means static.
#undef __shared__
#define __shared__ thread_local
#undef __launch_bounds__
#define __launch_bounds__(...)

#define threadIdx (::cuda_on_host::current->thread)
#define blockIdx (::cuda_on_host::current->block)
#define blockDim (::cuda_on_host::current->block_size)
#define gridDim (::cuda_on_host::current->grid_size)
inline constexpr int warpSize = 32;

namespace cuda_on_host {

template <class T>
T exchange(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>);
  exchange_in_warp(mask, &value, sizeof value, static_cast<unsigned>(source));
  return value;
}

// The lane in the caller's group of `width` lanes, and where the group begins.
struct Group {
  int lane, begin;
};
inline Group group(int width) {
  const int all = static_cast<int>(lane());
  return {all & (width - 1), all & ~(width - 1)};
}

template <class T, class Change>
T change_atomically(T* at, Change change) {
  T old;
  __atomic_load(at, &old, __ATOMIC_RELAXED);
  for (T next = change(old);
       !__atomic_compare_exchange(at, &old, &next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);)
    next = change(old);
  return old;
}

}  // namespace cuda_on_host

inline void __syncthreads() { cuda_on_host::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_host::wait_for_warp(mask); }
inline void __threadfence() { cuda_on_host::fence(); }
inline void __threadfence_block() { cuda_on_host::fence(); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return cuda_on_host::exchange(mask, value, cuda_on_host::group(width).begin + (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32) {
  const auto [lane, begin] = cuda_on_host::group(width);
  const int source = (lane + begin) ^ distance;
  return cuda_on_host::exchange(mask, value, source < begin + width ? source : lane + begin);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const auto [lane, begin] = cuda_on_host::group(width);
  const int source = lane + static_cast<int>(distance);
  return cuda_on_host::exchange(mask, value, begin + (source < width ? source : lane));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const auto [lane, begin] = cuda_on_host::group(width);
  const int source = lane - static_cast<int>(distance);
  return cuda_on_host::exchange(mask, value, begin + (source >= 0 ? source : lane));
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  return cuda_on_host::ballot_in_warp(mask, vote != 0);
}
inline int __any_sync(unsigned mask, int vote) { return cuda_on_host::ballot_in_warp(mask, vote != 0) != 0; }
inline int __all_sync(unsigned mask, int vote) { return cuda_on_host::ballot_in_warp(mask, vote == 0) == 0; }

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "sums of floats in any order have no fixed bits");
  return cuda_on_host::change_atomically(at, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return cuda_on_host::change_atomically(at, [=](T old) { return std::max(old, value); });
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return cuda_on_host::change_atomically(at, [=](T old) { return std::min(old, value); });
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return cuda_on_host::change_atomically(at, [=](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return cuda_on_host::change_atomically(at, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cuda_on_host::change_atomically(at, [=](T old) { return old == expected ? value : old; });
}
// old >= value ? 0 : old + 1, as the ticket of a last block wants it.
inline unsigned atomicInc(unsigned* at, unsigned value) {
  return cuda_on_host::change_atomically(at, [=](unsigned old) { return old >= value ? 0 : old + 1; });
}

// Loads and stores with a hint to the caches.
template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
T __ldcg(const T* from) {
  return *from;
}
template <class T>
T __ldca(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, std::type_identity_t<T> value) {
  *to = value;
}
template <class T>
void __stcg(T* to, std::type_identity_t<T> value) {
  *to = value;
}
template <class T>
void __stwt(T* to, std::type_identity_t<T> value) {
  *to = value;
}

// CUDA's own min and max are no templates of std, and take mixed types.
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x < 0 ? 0.0f : x > 1 ? 1.0f : x; }
inline float rcbrtf(float x) { return 1.0f / std::cbrt(x); }
inline float normcdff(float x) { return 0.5f * std::erfc(-x / std::numbers::sqrt2_v<float>); }

// The C library declares these names and does not define them.
#define __expf(x) ::expf(x)
#define __exp10f(x) ::exp10f(x)
#define __logf(x) ::logf(x)
#define __log2f(x) ::log2f(x)
#define __log10f(x) ::log10f(x)
#define __powf(x, y) ::powf(x, y)
#define __sinf(x) ::sinf(x)
#define __cosf(x) ::cosf(x)
#define __tanf(x) ::tanf(x)
#define __sincosf(x, sine, cosine) ::sincosf(x, sine, cosine)

// In one function each, so that the compiler cannot fuse a product and a sum that the device keeps apart.
[[gnu::noinline]] inline float __fadd_rn(float x, float y) { return x + y; }
[[gnu::noinline]] inline float __fsub_rn(float x, float y) { return x - y; }
[[gnu::noinline]] inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
[[gnu::noinline]] inline double __dadd_rn(double x, double y) { return x + y; }
[[gnu::noinline]] inline double __dmul_rn(double x, double y) { return x * y; }

inline void sincospi(double x, double* sine, double* cosine) {
  // Reduced before it is multiplied by pi, as the device does.
  const double turn = std::remainder(x, 2.0);
  *sine = std::sin(turn * std::numbers::pi);
  *cosine = std::cos(turn * std::numbers::pi);
}
inline void sincospif(float x, float* sine, float* cosine) {
  double s, c;
  sincospi(x, &s, &c);
  *sine = static_cast<float>(s);
  *cosine = static_cast<float>(c);
}

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>((std::uint64_t{x} * std::uint64_t{y}) >> 32);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }

// The host half of cuda_bf16.h lacks these. A fused product and sum is rounded once; f64 holds the product exactly.
inline __nv_bfloat16 __hfma(__nv_bfloat16 x, __nv_bfloat16 y, __nv_bfloat16 z) {
  return __double2bfloat16(
      std::fma(double{__bfloat162float(x)}, double{__bfloat162float(y)}, double{__bfloat162float(z)}));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 x, __nv_bfloat162 y, __nv_bfloat162 z) {
  return {__hfma(x.x, y.x, z.x), __hfma(x.y, y.y, z.y)};
}
inline __nv_bfloat16 hexp(__nv_bfloat16 x) { return __float2bfloat16_rn(std::exp(__bfloat162float(x))); }
inline __nv_bfloat16 hrsqrt(__nv_bfloat16 x) { return __float2bfloat16_rn(rsqrtf(__bfloat162float(x))); }
