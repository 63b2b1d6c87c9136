// Packs pieces of matrices into the panels that the micro-kernel of matmul.cpp reads.
//
// A panel holds `lines` lines (rows of A or columns of B) side by side, depth after depth: unit u of line i
// at [u * lines + i]. A unit is what one lane multiplies at once, in 32 bits: an f32, or a pair of bf16 at
// depths 2u and 2u + 1 where the processor has a dot product of pairs, or else a bf16 widened to f32. What is
// missing is zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "model/ops/cpu/vector.hpp"

namespace muster::cpu {

#if MUSTER_AVX512 && defined(__AVX512BF16__)
inline constexpr bool has_pair_products = true;
#else
inline constexpr bool has_pair_products = false;
#endif

// Depths in a unit.
template <class T>
inline constexpr std::int64_t unit_depth = has_pair_products&& std::is_same_v<T, bf16> ? 2 : 1;

template <class T>
constexpr std::int64_t units_of(std::int64_t depth) {
  return (depth + unit_depth<T> - 1) / unit_depth<T>;
}

// 16 units of a line that is contiguous in depth, of which `depth` depths exist.
template <class T>
MUSTER_INLINE Floats load_units(const T* from, std::int64_t depth) {
  if constexpr (unit_depth<T> == 2) {
    Floats units{};
    if (depth >= 2 * lanes)
      std::memcpy(&units, from, sizeof units);
    else
      std::memcpy(&units, from, static_cast<std::size_t>(depth) * sizeof(T));
    return units;
  } else {
    return depth >= lanes ? load(from) : load_part(from, depth);
  }
}

// The unit at this depth of 16 lines that are contiguous in memory, of which `count` exist.
template <class T>
MUSTER_INLINE Floats load_across(const T* from, std::int64_t depth_stride, std::int64_t depth,
                                 std::int64_t count) {
  if constexpr (unit_depth<T> == 2) {
    const auto bits = [&](const T* at) {
      return reinterpret_cast<Words>(count >= lanes ? load(at) : load_part(at, count));
    };
    const Words first = bits(from) >> 16, second = depth >= 2 ? bits(from + depth_stride) : Words{};
    return reinterpret_cast<Floats>(first | second);
  } else {
    return count >= lanes ? load(from) : load_part(from, count);
  }
}

// r[i][j] becomes r[j][i].
MUSTER_INLINE void transpose(Floats (&r)[lanes]) {
  Floats t[lanes];
  // Four steps swap blocks of 1, 2, 4, 8 lanes between lines of that distance.
  for (int i = 0; i < 16; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
    t[i + 1] =
        __builtin_shufflevector(r[i], r[i + 1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
  }
  for (int j = 0; j < 16; ++j) {
    if (j & 2) continue;
    r[j] = __builtin_shufflevector(t[j], t[j + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    r[j + 2] =
        __builtin_shufflevector(t[j], t[j + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  for (int j = 0; j < 16; ++j) {
    if (j & 4) continue;
    t[j] = __builtin_shufflevector(r[j], r[j + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
    t[j + 4] =
        __builtin_shufflevector(r[j], r[j + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  }
  for (int j = 0; j < 8; ++j) {
    r[j] = __builtin_shufflevector(t[j], t[j + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
    r[j + 8] =
        __builtin_shufflevector(t[j], t[j + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
}

// A piece of a matrix as lines along the depth of the product.
template <class T>
struct Lines {
  const T* from;
  std::int64_t line_stride, depth_stride;  // one of them is 1
  std::int64_t count, depth;
};

// Where the units of lines from `line` on stand in panels of `width` lines.
template <int width>
MUSTER_INLINE float* place(float* panels, std::int64_t line, std::int64_t unit, std::int64_t units) {
  return panels + line / width * width * units + unit * width + line % width;
}

// Stores 16 units side by side that belong to lines [line, line + 16) into panels of 8 or a multiple of 16
// lines.
template <int width>
MUSTER_INLINE void store_units(float* panels, std::int64_t line, std::int64_t unit, std::int64_t units,
                               Floats v) {
  if constexpr (width == 8) {
    // Two stores of half a vector: masked ones cost more than the packing.
    std::memcpy(place<width>(panels, line, unit, units), &v, 32);
    const Floats upper =
        __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    std::memcpy(place<width>(panels, line + 8, unit, units), &upper, 32);
  } else {
    store(place<width>(panels, line, unit, units), v);
  }
}

// Packs lines into consecutive panels of `width` lines; up to the next multiple of 16 lines (and of width)
// they are filled up with zeros.
template <int width, class T>
void pack_panels(const Lines<T>& lines, float* panels) {
  const std::int64_t units = units_of<T>(lines.depth);
  const std::int64_t multiple = std::max<std::int64_t>(width, lanes);
  const std::int64_t padded = (lines.count + multiple - 1) / multiple * multiple;
  if (lines.line_stride == 1) {
    // 16 units at a time, panel by panel: the panels lie at distances of which the L1 cache holds few lines.
    for (std::int64_t first = 0; first < units; first += lanes)
      for (std::int64_t line = 0; line < padded; line += lanes) {
        const std::int64_t count = std::clamp<std::int64_t>(lines.count - line, 0, lanes);
        for (std::int64_t unit = first; unit < std::min(units, first + lanes); ++unit) {
          const std::int64_t depth = unit * unit_depth<T>;
          for (std::int64_t i = 0; i < unit_depth<T>; ++i)
            __builtin_prefetch(lines.from + (depth + lanes * unit_depth<T> + i) * lines.depth_stride + line);
          store_units<width>(panels, line, unit, units,
                             load_across(lines.from + depth * lines.depth_stride + line, lines.depth_stride,
                                         lines.depth - depth, count));
        }
      }
    return;
  }
  for (std::int64_t line = 0; line < padded; line += lanes) {
    for (std::int64_t unit = 0; unit < units; unit += lanes) {
      const std::int64_t depth = unit * unit_depth<T>;
      // 16 streams are more than the processor follows by itself: 3 cache lines ahead.
      for (std::int64_t i = 0; i < std::min(lanes, lines.count - line); ++i)
        __builtin_prefetch(lines.from + (line + i) * lines.line_stride + depth + 3 * lanes * unit_depth<T>);
      Floats r[lanes];
      for (std::int64_t i = 0; i < lanes; ++i)
        r[i] = line + i < lines.count
                   ? load_units(lines.from + (line + i) * lines.line_stride + depth, lines.depth - depth)
                   : Floats{};
      transpose(r);
      for (std::int64_t i = 0; i < std::min(lanes, units - unit); ++i)
        store_units<width>(panels, line, unit + i, units, r[i]);
    }
  }
}

// Asks for part `part` of `parts` of what pack_panels will read of lines that lie across the depth. Inlined
// always: gcc drops calls of functions that do nothing but prefetch.
template <class T>
MUSTER_INLINE void prefetch(const Lines<T>& lines, std::int64_t part, std::int64_t parts) {
  for (std::int64_t row = part * lines.depth / parts; row < (part + 1) * lines.depth / parts; ++row)
    for (std::int64_t line = 0; line < lines.count; line += 64 / static_cast<std::int64_t>(sizeof(T)))
      __builtin_prefetch(lines.from + row * lines.depth_stride + line);
}

}  // namespace muster::cpu
