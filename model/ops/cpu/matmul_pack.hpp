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

// Packs `count` <= lines lines over `depth` depths. Lines are 8 or a multiple of 16.
template <int line_count, class T>
void pack_panel(const T* from, std::int64_t line_stride, std::int64_t depth_stride, std::int64_t count,
                std::int64_t depth, float* to) {
  constexpr std::int64_t lines = line_count;
  const std::int64_t units = units_of<T>(depth);
  if (line_stride == 1) {
    for (std::int64_t u = 0; u < units; ++u) {
      const T* at = from + u * unit_depth<T> * depth_stride;
      const std::int64_t left = depth - u * unit_depth<T>;
      for (std::int64_t i = 0; i < lines; i += lanes) {
        const std::int64_t part = std::clamp<std::int64_t>(count - i, 0, std::min(lines, lanes));
        const Floats v = load_across(at + i, depth_stride, left, part);
        if constexpr (lines < lanes)
          store_part(to + u * lines, v, lines);
        else
          store(to + u * lines + i, v);
      }
    }
    return;
  }
  // Lines contiguous in depth: 16 lines by 16 units are transposed in registers; with 8 lines, 8 by 32.
  constexpr std::int64_t group = std::min(lines, lanes), step = lanes * lanes / group;
  for (std::int64_t u = 0; u < units; u += step) {
    for (std::int64_t i = 0; i < lines; i += group) {
      Floats r[lanes];
      for (std::int64_t j = 0; j < lanes; ++j) {
        const std::int64_t line = i + j % group, at = (u + j / group * lanes) * unit_depth<T>;
        r[j] = line < count && at < depth ? load_units(from + line * line_stride + at, depth - at) : Floats{};
      }
      transpose(r);
      for (std::int64_t j = 0; j < lanes && u + j < units; ++j) {
        if constexpr (lines < lanes) {
          store_part(to + (u + j) * lines, r[j], lines);
          const Floats second =
              __builtin_shufflevector(r[j], r[j], 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
          if (u + j + lanes < units) store_part(to + (u + j + lanes) * lines, second, lines);
        } else {
          store(to + (u + j) * lines + i, r[j]);
        }
      }
    }
  }
}

}  // namespace muster::cpu
