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

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

// Depths in a unit.
template <class T>
inline constexpr std::int64_t unit_depth = MUSTER_BF16_PAIRS&& std::is_same_v<T, bf16> ? 2 : 1;

template <class T>
constexpr std::int64_t units_of(std::int64_t depth) {
  return (depth + unit_depth<T> - 1) / unit_depth<T>;
}

// Units of a line, one a lane, that is contiguous in depth, of which `depth` depths exist.
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

// The unit at this depth of as many lines as lanes, contiguous in memory, of which `count` exist.
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

// Stores units side by side that belong to lines [line, line + lanes) into panels of half as many lines as lanes, or of a
// multiple of lanes.
template <int width>
MUSTER_INLINE void store_units(float* panels, std::int64_t line, std::int64_t unit, std::int64_t units,
                               Floats v) {
  if constexpr (width == lanes / 2) {
    // Two stores of half a vector: masked ones cost more than the packing.
    constexpr int half = static_cast<int>(lanes / 2);
    std::memcpy(place<width>(panels, line, unit, units), &v, half * sizeof(float));
    const Floats upper = exchanged<half>(v);
    std::memcpy(place<width>(panels, line + half, unit, units), &upper, half * sizeof(float));
  } else {
    static_assert(width % lanes == 0);
    store(place<width>(panels, line, unit, units), v);
  }
}

// Packs lines into consecutive panels of `width` lines; up to the next multiple of `lanes` lines (and of width) they are
// filled up with zeros.
template <int width, class T>
void pack_panels(const Lines<T>& lines, float* panels) {
  const std::int64_t units = units_of<T>(lines.depth);
  const std::int64_t multiple = std::max<std::int64_t>(width, lanes);
  const std::int64_t padded = (lines.count + multiple - 1) / multiple * multiple;
  if (lines.line_stride == 1) {
    // A vector of units at a time, panel by panel: the panels lie at distances of which the L1 cache holds few lines.
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
      // So many streams are more than the processor follows by itself: 3 cache lines ahead.
      for (std::int64_t i = 0; i < std::min(lanes, lines.count - line); ++i)
        __builtin_prefetch(lines.from + (line + i) * lines.line_stride + depth + 3 * 16 * unit_depth<T>);
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

// Asks for what pack_panels will read of some lines, in as many steps as were named. Inlined always: gcc drops calls of
// functions that do nothing but prefetch.
template <class T>
class Prefetch {
 public:
  Prefetch(const Lines<T>& lines, std::int64_t steps) {
    const bool along = lines.depth_stride == 1;
    const std::int64_t runs = along ? lines.count : lines.depth, length = along ? lines.depth : lines.count;
    at_ = lines.from;
    stride_ = along ? lines.line_stride : lines.depth_stride;
    of_run_ = left_in_run_ = (length + cache_line - 1) / cache_line;
    left_ = runs * of_run_;
    of_step_ = (left_ + steps - 1) / steps;
  }

  MUSTER_INLINE void step() {
    for (std::int64_t i = std::min(of_step_, left_); i > 0; --i) {
      __builtin_prefetch(at_ + (of_run_ - left_in_run_) * cache_line, 0, 2);
      --left_;
      if (--left_in_run_ > 0) continue;
      left_in_run_ = of_run_;
      at_ += stride_;
    }
  }

 private:
  static constexpr std::int64_t cache_line = 64 / static_cast<std::int64_t>(sizeof(T));
  const T* at_;
  std::int64_t stride_, of_run_, left_in_run_, left_, of_step_;
};

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
