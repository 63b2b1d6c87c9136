// The innermost loop of matmul.cpp: a panel of rows of A times a panel of columns of B, sums in registers.
#pragma once

#include <cstdint>
#include <cstring>

#include "model/ops/cpu/matmul_pack.hpp"
#include "model/ops/cpu/vector.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

// Rows of a panel of A, and registers across a panel of B: as many sums as leave registers for a line of B and an
// element of A; 24 of the 32 registers of AVX-512 and NEON, 12 of AVX2's 16. Four products of two registers need one more of
// each on SSE2, which multiplies and adds apart.
#if MUSTER_AVX512 || MUSTER_NEON
inline constexpr int panel_rows = 8, panel_vectors = 3;
#elif MUSTER_AVX2
inline constexpr int panel_rows = 4, panel_vectors = 3;
#else
inline constexpr int panel_rows = 4, panel_vectors = 2;
#endif
inline constexpr int panel_columns = panel_vectors * static_cast<int>(lanes);

// c + the product of row `row` of the units (matmul_pack.hpp) of A at one depth and a register of B.
template <class T, class Units>
MUSTER_INLINE Floats multiply_add(const Units& a, int row, Floats b, Floats c) {
  const Floats factor = broadcast(a[row]);
#if MUSTER_BF16_PAIRS
  if constexpr (unit_depth<T> == 2)
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(c), reinterpret_cast<__m512bh>(factor), reinterpret_cast<__m512bh>(b)));
#endif
  return fma(factor, b, c);
}

// Rows of A as pack_panels lays them.
#if MUSTER_NEON
// A multiply-add takes its factor out of any lane of a register: all rows fill two. Spread over a register each, they
// would not fit beside the sums.
struct UnitsOfRows {
  float32x4_t fours[panel_rows / lanes];
};

template <class T>
MUSTER_INLINE Floats multiply_add(const UnitsOfRows& a, int row, Floats b, Floats c) {
  return reinterpret_cast<Floats>(vfmaq_laneq_f32(
      reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(b), a.fours[row / lanes], row % lanes));
}

struct PackedRows {
  const float* units;
  MUSTER_INLINE UnitsOfRows at(std::int64_t u) const {
    UnitsOfRows all;
    for (int i = 0; i < panel_rows / lanes; ++i) all.fours[i] = vld1q_f32(units + u * panel_rows + i * lanes);
    return all;
  }
};
#else
struct PackedRows {
  const float* units;
  MUSTER_INLINE const float* at(std::int64_t u) const { return units + u * panel_rows; }
};
#endif

// Rows of A as they lie in memory, where a unit is 32 bits of it.
template <class T>
struct RowsInPlace {
  const T* first;
  std::int64_t stride;

  MUSTER_INLINE float operator[](std::int64_t i) const {
    float unit;
    std::memcpy(&unit, first + i * stride, sizeof unit);
    return unit;
  }
  MUSTER_INLINE RowsInPlace at(std::int64_t u) const { return {first + u * unit_depth<T>, stride}; }
};

// c[i][j] = (add ? c[i][j] : 0) + sum over u of a.at(u)[i] b[u][j], for units of T; b is a packed panel.
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
    const auto units_of_rows = a.at(u);
#pragma GCC unroll 8
    for (int i = 0; i < panel_rows; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < panel_vectors; ++j)
        sums[i][j] = multiply_add<T>(units_of_rows, i, line[j], sums[i][j]);
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
