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

#include "model/ops/cpu/vector.hpp"

namespace muster::cpu {

struct Bf16Pair {
  bf16 first, second;
};

#if MUSTER_AVX512 && defined(__AVX512BF16__)
#define MUSTER_BF16_PAIRS 1
#else
#define MUSTER_BF16_PAIRS 0
#endif

template <class T>
using UnitOf = std::conditional_t<MUSTER_BF16_PAIRS && std::is_same_v<T, bf16>, Bf16Pair, float>;

template <class Unit>
inline constexpr std::int64_t unit_depth = sizeof(Unit) / (std::is_same_v<Unit, float> ? 4 : 2);

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return divide_up(a, b) * b; }

// One register: the compiler makes poor code of sixteen lanes in two of them.
using Register = float __attribute__((vector_size(MUSTER_AVX512 ? 64 : 32)));
inline constexpr std::int64_t register_lanes = sizeof(Register) / sizeof(float);
// Rows and registers in a row of a tile, so that its sums stay in registers.
inline constexpr int tile_rows = MUSTER_AVX512 ? 8 : 4;
inline constexpr int tile_registers = 2;
// Rows of A that are computed together, and columns of a panel of B.
inline constexpr std::int64_t block_rows = 32;
inline constexpr std::int64_t panel = 32;

// Units from row to row for `columns` of them: an odd number of cache lines, so that rows do not share L1
// sets.
constexpr std::int64_t row_stride(std::int64_t columns) {
  return divide_up(columns, lanes) / 2 * 2 * lanes + lanes;
}

MUSTER_INLINE Register multiply_add(const float* a, Register b, Register sum) { return *a * b + sum; }

#if MUSTER_BF16_PAIRS
MUSTER_INLINE Register multiply_add(const Bf16Pair* a, Register b, Register sum) {
  std::int32_t bits;
  std::memcpy(&bits, a, sizeof bits);
  return reinterpret_cast<Register>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
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

template <bool add, int registers, class Unit>
MUSTER_INLINE void multiply_tile(const Unit* a, std::int64_t a_row, std::int64_t a_step, const Unit* b,
                                 std::int64_t b_row, std::int64_t depth, float* c, std::int64_t c_row) {
  Register sums[tile_rows][registers];
#pragma GCC unroll 8
  for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < registers; ++v)
      if constexpr (add)
        std::memcpy(&sums[r][v], c + r * c_row + v * register_lanes, sizeof(Register));
      else
        sums[r][v] = Register{};
  for (std::int64_t k = 0; k < depth; ++k, a += a_step, b += b_row) {
    Register right[registers];
#pragma GCC unroll 2
    for (int v = 0; v < registers; ++v) std::memcpy(&right[v], b + v * register_lanes, sizeof(Register));
#pragma GCC unroll 8
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < registers; ++v) sums[r][v] = multiply_add(a + r * a_row, right[v], sums[r][v]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < registers; ++v)
      std::memcpy(c + r * c_row + v * register_lanes, &sums[r][v], sizeof(Register));
}

// C[rows][columns] (+)= A B over `depth` units; rows are rounded up to tile_rows, columns to lanes. With
// `transposed` the rows of A are neighbours in memory (a.row = 1).
template <bool add, bool transposed, class Unit>
[[gnu::noinline]] void multiply(Left<Unit> a, Right<Unit> b, std::int64_t rows, std::int64_t columns,
                                std::int64_t depth, float* c, std::int64_t c_row) {
  const std::int64_t a_row = transposed ? 1 : a.row, a_step = transposed ? a.step : 1;
  constexpr std::int64_t tile_columns = tile_registers * register_lanes;
  const std::int64_t padded = round_up(columns, lanes);
  std::int64_t column = 0;
  for (; column + tile_columns <= padded; column += tile_columns)
    for (std::int64_t row = 0; row < rows; row += tile_rows)
      multiply_tile<add, tile_registers>(a.data + row * a_row, a_row, a_step, b.data + column, b.row, depth,
                                         c + row * c_row + column, c_row);
  if (column < padded)
    for (std::int64_t row = 0; row < rows; row += tile_rows)
      multiply_tile<add, 1>(a.data + row * a_row, a_row, a_step, b.data + column, b.row, depth,
                            c + row * c_row + column, c_row);
}

// Sixteen columns of a row of a source, zero behind `count` of them.
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

// x[i][j] = x[j][i], in four rounds that exchange halves, quarters, ...
MUSTER_INLINE void transpose(Floats (&x)[16]) {
  const auto exchange = [&](int distance, Ints low, Ints high) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      if ((i & distance) == 0) {
        const Floats a = x[i], b = x[i + distance];
        x[i] = __builtin_shuffle(a, b, low);
        x[i + distance] = __builtin_shuffle(a, b, high);
      }
  };
  exchange(8, Ints{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
           Ints{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
  exchange(4, Ints{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
           Ints{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
  exchange(2, Ints{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
           Ints{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  exchange(1, Ints{0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
           Ints{1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
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
        Floats x[16];
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

// Two vectors of a row, 32 columns, as units of an operand A whose depth are the columns.
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

// Sixteen columns of two neighbouring rows, as units of an operand A whose depth are the rows.
MUSTER_INLINE void store_across(Bf16Pair* to, Floats even, Floats odd) {
  using Shorts [[gnu::vector_size(64)]] = std::uint16_t;
  const auto rounded = reinterpret_cast<Shorts>(round_to_bf16(even, odd));
  const Shorts mixed =
      __builtin_shufflevector(rounded, rounded, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24,
                              9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  store_units(to, reinterpret_cast<Floats>(mixed));
}
#endif

}  // namespace muster::cpu
