// Products of small tiles, and the layouts of their operands, for attention on the CPU.
//
// C[row][column] (+)= sum over depth of A[row][depth] B[depth][column], C in f32. Operands are made of units
// of four bytes: an f32, or two bf16 that are neighbours along the depth (where the processor multiplies such
// pairs; elsewhere bf16 is widened when it is packed). An element of A is broadcast, so A may lie any way;
// B has its columns side by side, padded with zeros to whole vectors.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "model/ops/cpu/rounding.hpp"
#include "model/ops/cpu/vector.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

struct Bf16Pair {
  bf16 first, second;
};

template <class T>
using UnitOf = std::conditional_t<MUSTER_BF16_PAIRS && std::is_same_v<T, bf16>, Bf16Pair, float>;

template <class Unit>
inline constexpr std::int64_t unit_depth = sizeof(Unit) / (std::is_same_v<Unit, float> ? 4 : 2);

// Rows and vectors in a row of a tile, so that its sums stay in registers.
inline constexpr int tile_rows = MUSTER_AVX512 || MUSTER_NEON ? 8 : 4;
inline constexpr int tile_vectors = 2;
// Rows of A that are computed together, and columns of a panel of B.
inline constexpr std::int64_t block_rows = 32;
inline constexpr std::int64_t panel = 2 * lanes;

// Units from row to row for `columns` of them: an odd number of vectors, so that rows do not share L1 sets.
constexpr std::int64_t row_stride(std::int64_t columns) {
  return divide_up(columns, lanes) / 2 * 2 * lanes + lanes;
}

MUSTER_INLINE Floats multiply_add(const float* a, Floats b, Floats sum) { return fma(broadcast(*a), b, sum); }

#if MUSTER_BF16_PAIRS
MUSTER_INLINE Floats multiply_add(const Bf16Pair* a, Floats b, Floats sum) {
  std::int32_t bits;
  std::memcpy(&bits, a, sizeof bits);
  return reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                   reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits)),
                                                   reinterpret_cast<__m512bh>(b)));
}
#endif

template <class Unit>
MUSTER_INLINE void store_units(Unit* to, Floats v) {
  std::memcpy(static_cast<void*>(to), &v, sizeof v);
}

// Where the units of an operand A lie: `row` apart from row to row, `step` apart along the depth.
template <class Unit>
struct Left {
  const Unit* data;
  std::int64_t row, step;
};

// Where the rows of an operand B, or of C, lie.
template <class Unit>
struct Right {
  const Unit* data;
  std::int64_t row;
};

template <bool add, int vectors, class Unit>
MUSTER_INLINE void multiply_tile(const Unit* a, std::int64_t a_row, std::int64_t a_step, const Unit* b,
                                 std::int64_t b_row, std::int64_t depth, float* c, std::int64_t c_row) {
  Floats sums[tile_rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v)
      if constexpr (add)
        std::memcpy(&sums[r][v], c + r * c_row + v * lanes, sizeof(Floats));
      else
        sums[r][v] = Floats{};
  for (std::int64_t k = 0; k < depth; ++k, a += a_step, b += b_row) {
    Floats right[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) std::memcpy(&right[v], b + v * lanes, sizeof(Floats));
#pragma GCC unroll 8
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) sums[r][v] = multiply_add(a + r * a_row, right[v], sums[r][v]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) std::memcpy(c + r * c_row + v * lanes, &sums[r][v], sizeof(Floats));
}

// C[rows][columns] (+)= A B over `depth` units; rows are rounded up to tile_rows, columns to lanes. With
// `transposed` the rows of A are neighbours in memory (a.row = 1).
template <bool add, bool transposed, class Unit>
[[gnu::noinline]] void multiply(Left<Unit> a, Right<Unit> b, std::int64_t rows, std::int64_t columns,
                                std::int64_t depth, float* c, std::int64_t c_row) {
  const std::int64_t a_row = transposed ? 1 : a.row, a_step = transposed ? a.step : 1;
  constexpr std::int64_t tile_columns = tile_vectors * lanes;
  const std::int64_t padded = round_up(columns, lanes);
  std::int64_t column = 0;
  for (; column + tile_columns <= padded; column += tile_columns)
    for (std::int64_t row = 0; row < rows; row += tile_rows)
      multiply_tile<add, tile_vectors>(a.data + row * a_row, a_row, a_step, b.data + column, b.row, depth,
                                       c + row * c_row + column, c_row);
  if (column < padded)
    for (std::int64_t row = 0; row < rows; row += tile_rows)
      multiply_tile<add, 1>(a.data + row * a_row, a_row, a_step, b.data + column, b.row, depth,
                            c + row * c_row + column, c_row);
}

// A vector of columns of a row of a source, zero behind `count` of them.
template <class T>
MUSTER_INLINE Floats load_columns(const T* from, std::int64_t count) {
  return count >= lanes ? load(from) : load_part(from, count > 0 ? count : 0);
}

template <class T>
MUSTER_INLINE void store_columns(T* to, Floats v, std::int64_t count) {
  if (count >= lanes)
    store(to, v);
  else
    store_part(to, v, count);
}

// Rows of a head as they lie, to be an operand A whose depth are the columns: to[row][column], with zeros
// behind the columns and in the rows [rows, padded_rows).
template <class T>
void pack_rows(const T* from, std::int64_t from_row, std::int64_t rows, std::int64_t padded_rows,
               std::int64_t columns, UnitOf<T>* to, std::int64_t to_row) {
  for (std::int64_t r = 0; r < padded_rows; ++r, from += from_row, to += to_row)
    for (std::int64_t c = 0; c < columns; c += lanes) {
      const Floats v = r < rows ? load_columns(from + c, columns - c) : Floats{};
      if constexpr (std::is_same_v<UnitOf<T>, float>)
        store(to + c, v);
      else
        store(reinterpret_cast<bf16*>(to) + c, v);
    }
}

// Rows of a head to be an operand B whose depth are the rows: to[row / unit_depth][column], padded as above.
template <class T>
void pack_depth(const T* from, std::int64_t from_row, std::int64_t rows, std::int64_t padded_rows,
                std::int64_t columns, UnitOf<T>* to, std::int64_t to_row) {
  if constexpr (std::is_same_v<UnitOf<T>, float>) {
    pack_rows(from, from_row, rows, padded_rows, columns, to, to_row);
  } else {
    for (std::int64_t r = 0; r < padded_rows; r += 2, from += 2 * from_row, to += to_row)
      for (std::int64_t c = 0; c < columns; c += lanes) {
        const Floats even = r < rows ? load_columns(from + c, columns - c) : Floats{};
        const Floats odd = r + 1 < rows ? load_columns(from + from_row + c, columns - c) : Floats{};
        const Words pairs = (reinterpret_cast<Words>(even) >> 16) | reinterpret_cast<Words>(odd);
        store_units(to + c, reinterpret_cast<Floats>(pairs));
      }
  }
}

// Rows of a head to be an operand B whose columns are the rows: to[row / panel][depth unit][row % panel], the
// rows padded with zeros to whole panels, the depth to whole vectors.
template <class T>
void pack_transposed(const T* from, std::int64_t from_row, std::int64_t rows, std::int64_t columns,
                     UnitOf<T>* to) {
  using Unit = UnitOf<T>;
  constexpr std::int64_t vector_columns = lanes * unit_depth<Unit>;
  const std::int64_t depth = round_up(columns, vector_columns) / unit_depth<Unit>;
  for (std::int64_t row = 0; row < rows; row += panel, to += depth * panel)
    for (std::int64_t half = 0; half < panel; half += lanes)
      for (std::int64_t c = 0; c < columns; c += vector_columns) {
        Floats x[lanes];
#pragma GCC unroll 16
        for (std::int64_t i = 0; i < lanes; ++i) {
          const std::int64_t r = row + half + i, left = columns - c;
          const T* source = from + r * from_row + c;
          if (r >= rows) {
            x[i] = Floats{};
          } else if constexpr (std::is_same_v<Unit, float>) {
            x[i] = load_columns(source, left);
          } else if (left >= vector_columns) {
            std::memcpy(&x[i], source, sizeof x[i]);
          } else {
            x[i] = Floats{};
            std::memcpy(&x[i], source, static_cast<std::size_t>(left) * sizeof(T));
          }
        }
        transpose(x);
#pragma GCC unroll 16
        for (std::int64_t i = 0; i < lanes; ++i)
          store_units(to + (c / unit_depth<Unit> + i) * panel + half, x[i]);
      }
}

// Depth of an operand made by pack_transposed, in units.
template <class Unit>
constexpr std::int64_t transposed_depth(std::int64_t columns) {
  return round_up(columns, lanes * unit_depth<Unit>) / unit_depth<Unit>;
}

// Two vectors of a row as units of an operand A whose depth are the columns.
MUSTER_INLINE void store_along(float* to, Floats low, Floats high) {
  store(to, low);
  store(to + lanes, high);
}

#if MUSTER_BF16_PAIRS
MUSTER_INLINE Words round_to_bf16(Floats low, Floats high) {
  return reinterpret_cast<Words>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
}

MUSTER_INLINE void store_along(Bf16Pair* to, Floats low, Floats high) {
  store_units(to, reinterpret_cast<Floats>(round_to_bf16(low, high)));
}

// A vector of columns of two neighbouring rows, as units of an operand A whose depth are the rows.
MUSTER_INLINE void store_across(Bf16Pair* to, Floats even, Floats odd) {
  using Shorts [[gnu::vector_size(64)]] = std::uint16_t;
  const auto rounded = reinterpret_cast<Shorts>(round_to_bf16(even, odd));
  const Shorts mixed = shuffle<[](int i) { return i % 2 * 16 + i / 2; }>(rounded, rounded);
  store_units(to, reinterpret_cast<Floats>(mixed));
}
#endif

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
