// Kernels over flat spaces. An element's result depends on the element alone, a sum on its block of 4,096
// alone.
#include "model/ops/flat.hpp"

#include <cmath>
#include <vector>

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"
#include "model/ops/cpu/philox_vector.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

using Doubles = double __attribute__((vector_size(lanes * 4)));
using HalfFloats = float __attribute__((vector_size(lanes * 2)));

void adamw(NativeStream, const AdamW& rule, const StepOutcome* outcome, std::span<float> weights,
           std::span<float> first, std::span<float> second, std::span<const float> gradients) {
  check(
      first.size() == weights.size() && second.size() == weights.size() && gradients.size() == weights.size(),
      "weights, moments and gradients of one length");
  if (outcome->skipped != 0) return;
  const float beta1 = rule.beta1, beta2 = rule.beta2, epsilon = rule.epsilon;
  const float rest1 = static_cast<float>(1.0 - static_cast<double>(beta1));
  const float rest2 = static_cast<float>(1.0 - static_cast<double>(beta2));
  const float keep = static_cast<float>(1.0 - static_cast<double>(rule.lr) * static_cast<double>(rule.decay));
  const float step = static_cast<float>(static_cast<double>(rule.lr) / outcome->correction1);
  const float root = static_cast<float>(1.0 / std::sqrt(outcome->correction2));
  const float scale = outcome->gradient_scale;
  float *w = weights.data(), *m = first.data(), *v = second.data();
  const float* gradient = gradients.data();
  for_lanes_parallel(static_cast<std::int64_t>(weights.size()), [=](std::int64_t i, auto part) {
    const Floats g = load(gradient + i, part) * scale;
    const Floats new_m = fma(broadcast(beta1), load(m + i, part), rest1 * g);
    const Floats new_v = fma(broadcast(beta2), load(v + i, part), rest2 * g * g);
    const Floats update = step * new_m / fma(sqrt(new_v), broadcast(root), broadcast(epsilon));
    store(m + i, new_m, part);
    store(v + i, new_v, part);
    store(w + i, fma(broadcast(keep), load(w + i, part), -update), part);
  });
}

MUSTER_INLINE void add_squares(Floats x, Doubles& low, Doubles& high) {
  HalfFloats lower, upper;
  std::memcpy(&lower, &x, sizeof lower);
  std::memcpy(&upper, reinterpret_cast<const std::byte*>(&x) + sizeof lower, sizeof upper);
  const Doubles a = __builtin_convertvector(lower, Doubles), b = __builtin_convertvector(upper, Doubles);
  low += a * a;  // exact product: 24 + 24 bits
  high += b * b;
}

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

// ln x for normal x in (0, 1], by Cephes' polynomial (Moshier 1992): x = 2^e m with m in [sqrt 1/2, sqrt 2).
MUSTER_INLINE Floats log(Floats x) {
  const Words bits = reinterpret_cast<Words>(x) - 0x3f3504f3u;  // the bits of sqrt(1/2): e = 0 from there on
  const Ints exponent = reinterpret_cast<Ints>(bits) >> 23;
  const Floats mantissa = reinterpret_cast<Floats>((bits & 0x007fffffu) + 0x3f3504f3u);
  const Floats e = __builtin_convertvector(exponent, Floats);
  const Floats f = mantissa - 1.0f, f2 = f * f;
  Floats p = broadcast(7.0376836292e-2f);
  for (const float coefficient : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                  -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = fma(p, f, broadcast(coefficient));
  Floats result = fma(e, broadcast(-2.12194440e-4f), p * f * f2);
  result = fma(f2, broadcast(-0.5f), result);
  return fma(e, broadcast(0.693359375f), f + result);
}

// Cosine and sine of 2 pi u for u in [0, 1) with 24 bits: u - n/4 is exact.
MUSTER_INLINE void cos_sin_of_turns(Floats u, Floats& cosine, Floats& sine) {
  const Floats shifted = fma(u, broadcast(4.0f), broadcast(12582912.0f));
  const Ints quadrant = reinterpret_cast<Ints>(shifted);
  const Floats r = (u * 4.0f - (shifted - 12582912.0f)) * 1.57079633f, r2 = r * r;
  Floats s = fma(r2, broadcast(-1.9515295891e-4f), broadcast(8.3321608736e-3f));
  s = fma(s, r2, broadcast(-1.6666654611e-1f));
  s = fma(s * r2, r, r);
  Floats c = fma(r2, broadcast(2.443315711809948e-5f), broadcast(-1.388731625493765e-3f));
  c = fma(c, r2, broadcast(4.166664568298827e-2f));
  c = fma(c, r2 * r2, fma(r2, broadcast(-0.5f), broadcast(1.0f)));
  const Ints odd = (quadrant & 1) != 0;
  const Floats x = select(odd, s, c), y = select(odd, c, s);
  cosine = select(((quadrant + 1) & 2) != 0, -x, x);
  sine = select((quadrant & 2) != 0, -y, y);
}

void store_scalars(NativeStream, StepScalars value, StepScalars* to) { *to = value; }

void add_report(NativeStream, LeafReport more, const double* loss, bool first, LeafReport* to) {
  if (first) *to = {};
  to->loss += more.loss + (loss != nullptr ? *loss : 0);
  to->targets += more.targets;
  to->stop |= more.stop;
  to->failed |= more.failed;
}

// At stride 1, 2, 4, ...: the tree of comm/reduction.hpp.
double sum_over_tree(std::span<double> values) {
  for (std::size_t stride = 1; stride < values.size(); stride *= 2)
    for (std::size_t i = 0; i + stride < values.size(); i += 2 * stride) values[i] += values[i + stride];
  return values.empty() ? 0 : values.front();
}

void finish_step(NativeStream, const OutcomeRule& rule, std::span<const LeafReport> leaves,
                 std::span<double> squares, StepOutcome* outcome) {
  StepOutcome result;
  result.updates = outcome->updates;
  std::vector<double> losses;
  for (const LeafReport& leaf : leaves) {
    losses.push_back(leaf.loss);
    result.targets += leaf.targets;
    result.stop |= leaf.stop;
    result.failed |= leaf.failed;
  }
  if (result.targets > 0) {
    const auto n = static_cast<double>(result.targets);
    result.loss = sum_over_tree(losses) / n;
    result.grad_norm = std::sqrt(sum_over_tree(squares)) / n;
  }
  result.skipped = result.targets == 0 || result.failed != 0 || !std::isfinite(result.loss) ||
                   !std::isfinite(result.grad_norm);
  result.clipped = result.skipped == 0 && rule.clip > 0 && result.grad_norm > rule.clip;
  if (result.skipped == 0) {
    const double factor = rule.clip > 0 ? std::min(1.0, rule.clip / (result.grad_norm + 1e-6)) : 1.0;
    result.gradient_scale = static_cast<float>(factor / static_cast<double>(result.targets));
    const auto updates = static_cast<double>(++result.updates);
    result.correction1 = 1 - std::pow(rule.beta1, updates);
    result.correction2 = 1 - std::pow(rule.beta2, updates);
  }
  *outcome = result;
}

}  // namespace

void fill_normal(std::span<float> x, std::int64_t first, float scale, std::uint32_t key, std::uint64_t seed) {
  check(first % 4 == 0, "random elements are drawn by fours");
  const RandomStream stream{0, 0, key, seed};
  parallel_ranges(static_cast<std::int64_t>(x.size()), 4096, [=](std::int64_t begin, std::int64_t end) {
    alignas(64) std::uint32_t words[64];
    for (std::int64_t i = begin; i < end; i += 64) {
      philox_64(static_cast<std::uint32_t>((first + i) / 4), stream, words);
      alignas(64) float normals[64];
      for (std::int64_t pair = 0; pair < 64; pair += 2 * lanes) {
        Words a, b;
        std::memcpy(&a, words + pair, sizeof a);
        std::memcpy(&b, words + pair + lanes, sizeof b);
        a >>= 8;
        b >>= 8;
        const Words even = shuffle<[](int lane) { return 2 * lane; }>(a, b);
        const Words odd = shuffle<[](int lane) { return 2 * lane + 1; }>(a, b);
        const Floats u = 1.0f - __builtin_convertvector(even, Floats) * 0x1p-24f;
        const Floats radius = scale * sqrt(-2.0f * log(u));
        Floats cosine, sine;
        cos_sin_of_turns(__builtin_convertvector(odd, Floats) * 0x1p-24f, cosine, sine);
        cosine *= radius;
        sine *= radius;
        constexpr int n = static_cast<int>(lanes);
        store(normals + pair, shuffle<[](int lane) { return lane % 2 * n + lane / 2; }>(cosine, sine));
        store(normals + pair + lanes,
              shuffle<[](int lane) { return lane % 2 * n + lane / 2 + n / 2; }>(cosine, sine));
      }
      std::copy_n(normals, std::min<std::int64_t>(64, end - i), x.data() + i);
    }
  });
}

const FlatKernels& flat_kernels() {
  static constexpr FlatKernels kernels = {adamw,         block_squares, add_flat,   to_bf16,
                                          store_scalars, add_report,    finish_step};
  return kernels;
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
