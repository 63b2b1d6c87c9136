// Sums and copies of flat spaces. An element's result depends on the element alone, a sum on its block of 4,096 alone.
#include "model/ops/cpu/elementwise.hpp"
#include "model/update/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

using Doubles = double __attribute__((vector_size(lanes * 4)));
using HalfFloats = float __attribute__((vector_size(lanes * 2)));

MUSTER_INLINE void add_squares(Floats x, Doubles& low, Doubles& high) {
  HalfFloats lower, upper;
  std::memcpy(&lower, &x, sizeof lower);
  std::memcpy(&upper, reinterpret_cast<const std::byte*>(&x) + sizeof lower, sizeof upper);
  const Doubles a = __builtin_convertvector(lower, Doubles), b = __builtin_convertvector(upper, Doubles);
  low += a * a;  // exact product: 24 + 24 bits
  high += b * b;
}

}  // namespace

void block_squares(NativeStream, std::span<const float> x, std::span<double> sums) {
  const std::int64_t count = static_cast<std::int64_t>(x.size());
  check(static_cast<std::int64_t>(sums.size()) == (count + flat_block - 1) / flat_block,
        "a sum for each block of 4,096 elements");
  parallel_ranges(count, 4 * flat_block, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first; begin < last; begin += flat_block) {
      Doubles low{}, high{};
      for_lanes(begin, std::min(last, begin + flat_block),
                [&](std::int64_t i, auto part) { add_squares(load(x.data() + i, part), low, high); });
      double s[lanes / 2];
      const Doubles both = low + high;
      std::memcpy(s, &both, sizeof s);
      for (std::int64_t distance = lanes / 4; distance > 0; distance /= 2)
        for (std::int64_t i = 0; i < distance; ++i) s[i] += s[i + distance];
      sums[static_cast<std::size_t>(begin / flat_block)] = s[0];
    }
  });
}

void add_flat(NativeStream, std::span<float> a, std::span<const float> b) {
  check(a.size() == b.size(), "sums of spaces of one length");
  float* to = a.data();
  const float* from = b.data();
  for_lanes_parallel(static_cast<std::int64_t>(a.size()), [=](std::int64_t i, auto part) {
    store(to + i, load(to + i, part) + load(from + i, part), part);
  });
}

void to_bf16(NativeStream, std::span<const float> from, std::span<bf16> to) {
  check(from.size() == to.size(), "copies of one length");
  const float* x = from.data();
  bf16* y = to.data();
  for_lanes_parallel(static_cast<std::int64_t>(from.size()),
                     [=](std::int64_t i, auto part) { store(y + i, load(x + i, part), part); });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
