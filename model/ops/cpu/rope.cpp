// Rotary positions. Cosines and sines of a row are computed once in f64, and serve all its
// heads.
#include "model/ops/rope.hpp"

#include <cmath>

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

constexpr std::int64_t wide_lanes = lanes / 2;
using Doubles = double __attribute__((vector_size(lanes * 4)));
using Longs = std::int64_t __attribute__((vector_size(lanes * 4)));
using HalfFloats = float __attribute__((vector_size(lanes * 2)));

constexpr std::int64_t largest_half = 256;  // half of the largest head

// Cosines and sines of a vector of angles below a million, to about the precision of f64 angles: far beyond f32.
MUSTER_INLINE void cos_sin(Doubles angle, float* cosines, float* sines) {
  // angle = n pi/2 + r with |r| <= pi/4. Adding 1.5 * 2^52 leaves n in the low bits of the sum; the first
  // part of pi/2 has 33 bits (Sun's fdlibm), so that its product with n is exact.
  const Doubles shifted = angle * 0x1.45f306dc9c883p-1 + 0x1.8p52;
  const Doubles n = shifted - 0x1.8p52;
  const Doubles r = (angle - n * 1.57079632673412561417e+00) - n * 6.07710050650619224932e-11;
  const Doubles r2 = r * r;
  // Taylor series; the first terms left out are below 1e-13 (sine) and 1e-14 (cosine).
  const Doubles s =
      r +
      r * r2 *
          (-1.0 / 6 + r2 * (1.0 / 120 + r2 * (-1.0 / 5040 + r2 * (1.0 / 362880 + r2 * (-1.0 / 39916800)))));
  const Doubles c =
      1.0 +
      r2 * (-1.0 / 2 +
            r2 * (1.0 / 24 +
                  r2 * (-1.0 / 720 + r2 * (1.0 / 40320 + r2 * (-1.0 / 3628800 + r2 * (1.0 / 479001600))))));
  const Longs quadrant = reinterpret_cast<Longs>(shifted);
  const Longs odd = (quadrant & 1) != 0, cos_negative = ((quadrant + 1) & 2) != 0;
  const Longs sin_negative = (quadrant & 2) != 0;
  const Doubles cosine = odd ? s : c, sine = odd ? c : s;
  const HalfFloats narrow_cosine = __builtin_convertvector(cos_negative ? -cosine : cosine, HalfFloats);
  const HalfFloats narrow_sine = __builtin_convertvector(sin_negative ? -sine : sine, HalfFloats);
  std::memcpy(cosines, &narrow_cosine, sizeof narrow_cosine);
  std::memcpy(sines, &narrow_sine, sizeof narrow_sine);
}

}  // namespace

void rope(const Op& op, const KernelArgs& args) {
  const auto& rope = static_cast<const Rope&>(op);
  const std::int64_t half = rope.head_size() / 2, columns = args.inputs[0].columns();
  const std::int64_t rotated = rope.rotated_heads() * static_cast<std::int64_t>(rope.head_size());
  check(half <= largest_half, "rotary positions of heads of at most 512 columns");
  const std::int32_t* positions = args.inputs[1].as<std::int32_t>();

  alignas(64) double frequencies[largest_half] = {};
  for (std::int64_t i = 0; i < half; ++i)
    frequencies[i] = std::pow(rope.base(), -2.0 * static_cast<double>(i) / rope.head_size());

  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    parallel_ranges(args.inputs[0].rows(), rows_of_task(columns), [&](std::int64_t begin, std::int64_t end) {
      alignas(64) float cosines[largest_half], sines[largest_half];
      for (std::int64_t row = begin; row < end; ++row) {
        const double position = rope.inverse() ? -positions[row] : positions[row];
        for (std::int64_t i = 0; i < half; i += wide_lanes) {
          Doubles frequency;
          std::memcpy(&frequency, frequencies + i, sizeof frequency);
          cos_sin(position * frequency, cosines + i, sines + i);
        }
        const T* x = args.inputs[0].as<T>() + row * columns;
        T* y = args.outputs[0].as<T>() + row * columns;
        for (std::int64_t head = 0; head < rotated; head += 2 * half) {
          const T *low = x + head, *high = low + half;
          T *y_low = y + head, *y_high = y_low + half;
          for_lanes(0, half, [&](std::int64_t i, auto part) {
            const Floats a = load(low + i, part), b = load(high + i, part);
            const Floats cosine = load(cosines + i), sine = load(sines + i);
            store(y_low + i, fma(a, cosine, -(b * sine)), part);
            store(y_high + i, fma(b, cosine, a * sine), part);
          });
        }
        if (y != x) std::copy(x + rotated, x + columns, y + rotated);
      }
    });
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
