// What the kernels share: 128-bit accesses, conversions, sums over a warp and a block in a fixed order, and the
// Philox numbers of core/philox.hpp.
#pragma once

#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>

#include "core/cuda/launch.hpp"
#include "core/dtype.hpp"
#include "core/error.hpp"
#include "core/philox.hpp"

namespace muster::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
__device__ inline T from_float(float x) {
  if constexpr (sizeof(T) == 2)
    return __float2bfloat16_rn(x);
  else
    return x;
}

// Bits of a tensor of any type, in one access.
struct __attribute__((__may_alias__, __aligned__(16))) Bits16 {
  unsigned words[4];
};
struct __attribute__((__may_alias__, __aligned__(8))) Bits8 {
  unsigned words[2];
};

// 16 bytes of a tensor, or N elements. The kernels take whole vectors where pointer and length allow, single elements
// elsewhere.
template <class T, int N = 16 / static_cast<int>(sizeof(T))>
struct alignas(N * sizeof(T)) Vector {
  static constexpr int size = N;
  T elements[size];
  __device__ T& operator[](int i) { return elements[i]; }
  __device__ const T& operator[](int i) const { return elements[i]; }
};

template <class T>
__device__ inline Vector<T> load_vector(const T* from) {
  const Bits16 bits = *reinterpret_cast<const Bits16*>(from);
  Vector<T> vector;
  memcpy(&vector, &bits, sizeof bits);
  return vector;
}
template <class T>
__device__ inline void store_vector(T* to, const Vector<T>& vector) {
  Bits16 bits;
  memcpy(&bits, &vector, sizeof bits);
  *reinterpret_cast<Bits16*>(to) = bits;
}

// W elements of a tensor of any type, as they are computed with: for 8 or a multiple of 16 bytes of the tensor, or
// one element.
template <int W>
struct Floats {
  float lanes[W];
  __device__ float& operator[](int i) { return lanes[i]; }
  __device__ const float& operator[](int i) const { return lanes[i]; }
};

template <int W, class T>
__device__ inline Floats<W> load_floats(const T* from) {
  Floats<W> floats;
  if constexpr (W == 1) {
    floats[0] = to_float(*from);
  } else if constexpr (W * sizeof(T) == 8) {
    const Bits8 bits = *reinterpret_cast<const Bits8*>(from);
    Vector<T, W> vector;
    memcpy(&vector, &bits, sizeof bits);
    for (int i = 0; i < W; ++i) floats[i] = to_float(vector[i]);
  } else {
    constexpr int size = Vector<T>::size;
    static_assert(W % size == 0);
    for (int part = 0; part < W; part += size) {
      const Vector<T> vector = load_vector(from + part);
      for (int i = 0; i < size; ++i) floats[part + i] = to_float(vector[i]);
    }
  }
  return floats;
}
template <class T, int W>
__device__ inline void store_floats(T* to, const Floats<W>& floats) {
  if constexpr (W == 1) {
    *to = from_float<T>(floats[0]);
  } else if constexpr (W * sizeof(T) == 8) {
    Vector<T, W> vector;
    for (int i = 0; i < W; ++i) vector[i] = from_float<T>(floats[i]);
    Bits8 bits;
    memcpy(&bits, &vector, sizeof bits);
    *reinterpret_cast<Bits8*>(to) = bits;
  } else {
    constexpr int size = Vector<T>::size;
    static_assert(W % size == 0);
    for (int part = 0; part < W; part += size) {
      Vector<T> vector;
      for (int i = 0; i < size; ++i) vector[i] = from_float<T>(floats[part + i]);
      store_vector(to + part, vector);
    }
  }
}

// Over each run of `lanes` lanes (a power of two) of a warp, by butterflies: all of them have the same bits.
template <int lanes = warp_size, class T>
__device__ inline T warp_sum(T x) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(all_lanes, x, distance);
  return x;
}
template <int lanes = warp_size>
__device__ inline float warp_max(float x) {
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    x = fmaxf(x, __shfl_xor_sync(all_lanes, x, distance));
  return x;
}

// Over a block of whole warps, at most 1,024 threads; every thread has the result. `scratch`: 32 elements of shared
// memory that are free again when the next barrier has passed.
template <class T>
__device__ inline T block_sum(T x, T* scratch) {
  const int warps = static_cast<int>(blockDim.x) / warp_size;
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % warp_size == 0) scratch[threadIdx.x / warp_size] = x;
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  return warp_sum(lane < warps ? scratch[lane] : T{});
}

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Calls body with a null pointer of the kernel's element type.
template <class Body>
void with_element_type(DType type, Body&& body) {
  switch (type) {
    case DType::f32:
      return body(static_cast<float*>(nullptr));
    case DType::bf16:
      return body(static_cast<__nv_bfloat16*>(nullptr));
    default:
      throw Defect("CUDA kernels compute in f32 and bf16");
  }
}

}  // namespace muster::cuda
