// The innermost loop of matmul.cpp: a panel of rows of A times a panel of columns of B, sums in registers.
#pragma once

#include <cstdint>
#include <cstring>

#include "model/ops/cpu/matmul_pack.hpp"
#include "model/ops/cpu/vector.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

// Rows of a panel of A, and registers across a panel of B: as many sums as leave registers for a line of B and an
// element of A; 24 of AVX-512's 32 registers, 12 of AVX2's 16. Four products of two registers need one more of each on
// SSE2, which multiplies and adds apart.
#if MUSTER_AVX512
inline constexpr int panel_rows = 8, panel_vectors = 3;
#elif MUSTER_AVX2 || defined(__aarch64__)
inline constexpr int panel_rows = 4, panel_vectors = 3;
#else
inline constexpr int panel_rows = 4, panel_vectors = 2;
#endif
inline constexpr int panel_columns = panel_vectors * static_cast<int>(lanes);

// c + the product of two units (matmul_pack.hpp).
template <class T>
MUSTER_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if MUSTER_BF16_PAIRS
  if constexpr (unit_depth<T> == 2)
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(c), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
#endif
  return fma(a, b, c);
}

// Rows of A as pack_panels lays them, and as they lie in memory where a unit is 32 bits of it: unit u of row i.
struct PackedRows {
  const float* units;
  MUSTER_INLINE float operator()(std::int64_t i, std::int64_t u) const { return units[u * panel_rows + i]; }
};
template <class T>
struct RowsInPlace {
  const T* first;
  std::int64_t stride;
  MUSTER_INLINE float operator()(std::int64_t i, std::int64_t u) const {
    float unit;
    std::memcpy(&unit, first + i * stride + u * unit_depth<T>, sizeof unit);
    return unit;
  }
};

// c[i][j] = (add ? c[i][j] : 0) + sum over u of a(i, u) b[u][j], for units of T; b is a packed panel.
template <class T, class Rows>
[[gnu::noinline]] void multiply_panels(const Rows a, const float* b, std::int64_t units, float* c,
                                       std::int64_t stride, bool add) {
  // C is wanted in hundreds of cycles, and its rows lie too far apart for the processor to foresee them.
  for (int i = 0; i < panel_rows; ++i)
    for (int j = 0; j < panel_columns; j += 16) __builtin_prefetch(c + i * stride + j, 1);
  Floats sums[panel_rows][panel_vectors];
#pragma GCC unroll 8
  for (auto& row : sums)
#pragma GCC unroll 3
    for (Floats& sum : row) sum = Floats{};
#pragma GCC unroll 4
  for (std::int64_t u = 0; u < units; ++u, b += panel_columns) {
    Floats line[panel_vectors];
#pragma GCC unroll 3
    for (int j = 0; j < panel_vectors; ++j) line[j] = load(b + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < panel_rows; ++i) {
      const Floats factor = broadcast(a(i, u));
#pragma GCC unroll 3
      for (int j = 0; j < panel_vectors; ++j) sums[i][j] = multiply_add<T>(factor, line[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < panel_rows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < panel_vectors; ++j) {
      float* const at = c + i * stride + j * lanes;
      store(at, add ? load(at) + sums[i][j] : sums[i][j]);
    }
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
