// What the kernels share whose elements are computed alone: one pass, a thread for each vector, so that a kernel
// moves its bytes at the speed of a copy.
#pragma once

#include <cstdint>
#include <type_traits>

#include "model/ops/cuda/device.cuh"

namespace muster::cuda {

inline constexpr int block_threads = 256;

__device__ inline std::int64_t thread_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Blocks for so many threads; a grid is never empty where this is called.
inline dim3 blocks_for(std::int64_t threads) {
  const std::int64_t blocks = divide_up(threads, block_threads);
  check(blocks > 0 && blocks < (std::int64_t{1} << 31), "a grid of at most 2^31 blocks");
  return dim3(static_cast<unsigned>(blocks));
}

// For kernels that find an item's row by a division: in 64 bits it would be some 40 instructions instead of 8.
inline dim3 blocks_for_items(std::int64_t items) {
  if (items > std::int64_t{1} << 32)
    throw UserError(
        "a tensor of {} vectors is more than the 2^32 that GPU kernels count: lower train.micro_batch",
        items);
  return blocks_for(items);
}

inline bool aligned(std::uintptr_t bytes, auto*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % bytes == 0) && ...);
}

// Calls body(std::integral_constant<int, width>), with W where rows are whole vectors, else with 1.
template <int W, class Body>
void with_width(bool whole_vectors, Body&& body) {
  if (whole_vectors)
    body(std::integral_constant<int, W>{});
  else
    body(std::integral_constant<int, 1>{});
}

// exp(x) and 1 / x: to the last places where results are stored in f32; where they are rounded to bf16 (T), by the
// units for special functions, to 2^-20.
template <class T>
__device__ inline float exponential(float x) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 2) return __expf(x);
#endif
  return expf(x);
}
template <class T>
__device__ inline float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 2) return __fdividef(1.0f, x);
#endif
  return 1.0f / x;
}
template <class T>
__device__ inline float sigmoid(float x) {
  return reciprocal<T>(1.0f + exponential<T>(-x));
}

// y[i] = f(x[i]...), W elements a thread; y may be one of x.
template <int W, class F, class T, class... X>
__global__ void __launch_bounds__(block_threads) map_elements(F f, T* y, std::int64_t count, const X*... x) {
  const std::int64_t begin = thread_of_grid() * W;
  if (begin + W <= count) {
    const auto compute = [&](const auto&... in) {
      Floats<W> out;
      for (int i = 0; i < W; ++i) out[i] = f(in[i]...);
      store_floats(y + begin, out);
    };
    compute(load_floats<W>(x + begin)...);
  } else {
    for (std::int64_t i = begin; i < count; ++i) y[i] = from_float<T>(f(to_float(x[i])...));
  }
}

template <class F, class T, class... X>
void map(NativeStream stream, F f, T* y, std::int64_t count, const X*... x) {
  if (count == 0) return;
  constexpr int width = Vector<std::conditional_t<(... || (sizeof(X) == 4)), float, T>>::size;
  with_width<width>(aligned(16, y, x...), [&](auto w) {
    launch(map_elements<w(), F, T, X...>, blocks_for(divide_up(count, w())), block_threads, 0, stream, f, y,
           count, x...);
  });
}

}  // namespace muster::cuda
