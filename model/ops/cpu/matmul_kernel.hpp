// The innermost loop of matmul.cpp: a few rows of A times a panel of columns of B, sums in registers.
#pragma once

#include <cstdint>
#include <cstring>

#include "model/ops/cpu/matmul_pack.hpp"
#include "model/ops/cpu/vector.hpp"

namespace muster::cpu {

// kernel_rows x panel_columns sums: 24 of AVX-512's 32 registers, or 8 of AVX2's 16.
#if MUSTER_AVX512
inline constexpr int kernel_rows = 8, panel_vectors = 3;
#else
inline constexpr int kernel_rows = 4, panel_vectors = 1;
#endif
inline constexpr int panel_rows = 8;  // of packed panels of A; a multiple of kernel_rows
inline constexpr int panel_columns = panel_vectors * static_cast<int>(lanes);

// A unit (matmul_pack.hpp) in every lane.
template <class T>
MUSTER_INLINE Floats broadcast_unit(const std::byte* from) {
  if constexpr (unit_depth<T> * sizeof(T) == sizeof(float)) {
    float unit;
    std::memcpy(&unit, from, sizeof unit);
    return broadcast(unit);
  } else {
    T value;
    std::memcpy(static_cast<void*>(&value), from, sizeof value);
    return broadcast(static_cast<float>(value));
  }
}

// c + the product of two units.
template <class T>
MUSTER_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if MUSTER_AVX512 && defined(__AVX512BF16__)
  if constexpr (unit_depth<T> == 2)
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(c), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
#endif
  return fma(a, b, c);
}

// c[i][j] = (add ? c[i][j] : 0) + sum over u of a[u][i] b[u][j], for units of T; a's are stored as Source,
// unit (u, i) at u * unit_bytes + i * row_bytes.
template <class T, class Source, std::int64_t unit_bytes>
MUSTER_INLINE void micro_kernel(const std::byte* a, std::int64_t row_bytes, const float* b,
                                std::int64_t units, float* c, std::int64_t stride, bool add) {
  for (int i = 0; i < kernel_rows; ++i)
    for (int j = 0; j < panel_columns; j += static_cast<int>(lanes))
      __builtin_prefetch(c + i * stride + j, 1);
  Floats sums[kernel_rows][panel_vectors];
#pragma GCC unroll 8
  for (auto& row : sums)
#pragma GCC unroll 3
    for (Floats& sum : row) sum = Floats{};
  for (std::int64_t u = 0; u < units; ++u, a += unit_bytes, b += panel_columns) {
    Floats line[panel_vectors];
#pragma GCC unroll 3
    for (int j = 0; j < panel_vectors; ++j) line[j] = load(b + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < kernel_rows; ++i) {
      const Floats factor = broadcast_unit<Source>(a + i * row_bytes);
#pragma GCC unroll 3
      for (int j = 0; j < panel_vectors; ++j) sums[i][j] = multiply_add<T>(factor, line[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kernel_rows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < panel_vectors; ++j) {
      float* const at = c + i * stride + j * lanes;
      store(at, add ? load(at) + sums[i][j] : sums[i][j]);
    }
}

// panel_rows rows of A as they lie in memory, contiguous in depth.
template <class T>
[[gnu::noinline]] void multiply_rows(const T* a, std::int64_t row_stride, const float* b_panel,
                                     std::int64_t units, float* c, std::int64_t stride, bool add) {
  for (int i = 0; i < panel_rows; i += kernel_rows)
    micro_kernel<T, T, unit_depth<T> * sizeof(T)>(reinterpret_cast<const std::byte*>(a + i * row_stride),
                                                  row_stride * static_cast<std::int64_t>(sizeof(T)), b_panel,
                                                  units, c + i * stride, stride, add);
}

// panel_rows rows of A packed in a panel.
template <class T>
[[gnu::noinline]] void multiply_panel(const float* a_panel, const float* b_panel, std::int64_t units,
                                      float* c, std::int64_t stride, bool add) {
  for (int i = 0; i < panel_rows; i += kernel_rows)
    micro_kernel<T, float, panel_rows * sizeof(float)>(reinterpret_cast<const std::byte*>(a_panel + i),
                                                       sizeof(float), b_panel, units, c + i * stride, stride,
                                                       add);
}

}  // namespace muster::cpu
