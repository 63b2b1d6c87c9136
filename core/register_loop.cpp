// Written as assembly, so that neither the compiler's wits nor its flags change what is measured, and so that a binary
// for any processor holds the loops of all.
#include "core/register_loop.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace muster {
namespace {

// Numbers without a pattern, of magnitude 0.5 to 1 times `scale`.
template <std::size_t count>
constexpr std::array<float, count> numbers(std::uint32_t seed, float scale) {
  std::array<float, count> values{};
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = scale * (0.5f + static_cast<float>(seed >> 8) * 0x1p-25f);
  }
  return values;
}

#if defined(__x86_64__)

// sum = sum x a + b and sum = sum x c + d take turns, with a x c = -1: a sum runs through four values.
struct alignas(64) Operands {
  std::array<float, 16> a = numbers<16>(1, 1), b = numbers<16>(2, 1), c{}, d = numbers<16>(3, -1),
                        start = numbers<16>(4, 1);
  constexpr Operands() {
    for (std::size_t i = 0; i < c.size(); ++i) c[i] = -1 / a[i];
  }
};
constexpr Operands operands;

// Sums lie in registers 0 to 11, and a, b, c, d in 12 to 15. The assembler's .irp repeats a line for each sum.
#define MUSTER_EACH_SUM(LINE) ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n" LINE "\n.endr\n"
#define MUSTER_LOOP(MOVE, REGISTER, TURN_1, TURN_2)                                                \
  MOVE " (%1), %%" REGISTER "12\n" MOVE " 64(%1), %%" REGISTER "13\n" MOVE " 128(%1), %%" REGISTER \
       "14\n" MOVE " 192(%1), %%" REGISTER                                                         \
       "15\n" MUSTER_EACH_SUM(MOVE " 256(%1), %%" REGISTER "\\r") ".p2align 6\n1:\n" TURN_1 TURN_2 \
                                                                  "dec %0\njnz 1b\n"
#define MUSTER_CLOBBERED                                                                                   \
  "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

constexpr std::int64_t loops = 16'000;  // of two turns

// A product need not wait for a sum: six registers are only multiplied, six only added to.
#define MUSTER_SSE2_TURN(FACTOR, TERM)              \
  "mulps %%xmm" FACTOR ", %%xmm0\naddps %%xmm" TERM \
  ", %%xmm6\n"                                      \
  "mulps %%xmm" FACTOR ", %%xmm1\naddps %%xmm" TERM \
  ", %%xmm7\n"                                      \
  "mulps %%xmm" FACTOR ", %%xmm2\naddps %%xmm" TERM \
  ", %%xmm8\n"                                      \
  "mulps %%xmm" FACTOR ", %%xmm3\naddps %%xmm" TERM \
  ", %%xmm9\n"                                      \
  "mulps %%xmm" FACTOR ", %%xmm4\naddps %%xmm" TERM \
  ", %%xmm10\n"                                     \
  "mulps %%xmm" FACTOR ", %%xmm5\naddps %%xmm" TERM ", %%xmm11\n"

void multiply_and_add_sse2() {
  std::int64_t left = 2 * loops;
  asm volatile(MUSTER_LOOP("movaps", "xmm", MUSTER_SSE2_TURN("12", "13"), MUSTER_SSE2_TURN("14", "15"))
               : "+r"(left)
               : "r"(&operands)
               : MUSTER_CLOBBERED);
}

void multiply_add_avx2() {
  std::int64_t left = 2 * loops;
  asm volatile(MUSTER_LOOP("vmovaps", "ymm", MUSTER_EACH_SUM("vfmadd213ps %%ymm13, %%ymm12, %%ymm\\r"),
                           MUSTER_EACH_SUM("vfmadd213ps %%ymm15, %%ymm14, %%ymm\\r")) "vzeroupper\n"
               : "+r"(left)
               : "r"(&operands)
               : MUSTER_CLOBBERED);
}

void multiply_add_avx512() {
  std::int64_t left = loops;
  asm volatile(MUSTER_LOOP("vmovaps", "zmm", MUSTER_EACH_SUM("vfmadd213ps %%zmm13, %%zmm12, %%zmm\\r"),
                           MUSTER_EACH_SUM("vfmadd213ps %%zmm15, %%zmm14, %%zmm\\r")) "vzeroupper\n"
               : "+r"(left)
               : "r"(&operands)
               : MUSTER_CLOBBERED);
}

// sum += a . b and sum += c . d: halves of f32 are bf16, the lower ones of any magnitude but finite.
struct alignas(64) Pairs {
  std::array<std::uint32_t, 16> a{}, b{}, c{}, d{}, start{};
  constexpr Pairs() {
    const auto pair = [](float low, float high) {
      return std::bit_cast<std::uint32_t>(low) >> 16 | (std::bit_cast<std::uint32_t>(high) & 0xffff0000u);
    };
    const auto x = numbers<64>(5, 1), y = numbers<64>(6, -1);
    for (std::size_t i = 0; i < a.size(); ++i) {
      a[i] = pair(x[i], y[i]);
      b[i] = pair(x[i + 16], x[i + 32]);
      c[i] = pair(y[i + 16], x[i + 48]);
      d[i] = pair(x[i + 32], x[i + 16]);
      start[i] = std::bit_cast<std::uint32_t>(x[i]);
    }
  }
};
constexpr Pairs pairs;

void sum_products_of_pairs() {
  std::int64_t left = loops;
  asm volatile(MUSTER_LOOP("vmovaps", "zmm", MUSTER_EACH_SUM("vdpbf16ps %%zmm13, %%zmm12, %%zmm\\r"),
                           MUSTER_EACH_SUM("vdpbf16ps %%zmm15, %%zmm14, %%zmm\\r")) "vzeroupper\n"
               : "+r"(left)
               : "r"(&pairs)
               : MUSTER_CLOBBERED);
}

// 16 x 16 sums in each of four tiles; two tiles of 16 x 32 bf16 on either side.
constexpr std::size_t tile_bytes = 1024;
constexpr std::int64_t tile_loops = 4'000;

struct alignas(64) Tiles {
  std::array<std::uint8_t, 64> shape{};
  std::array<std::array<std::uint32_t, tile_bytes / 4>, 4> values{};
  constexpr Tiles() {
    constexpr std::size_t tiles = 8, row_bytes = 16, rows = 48;  // where the shape tells them
    shape[0] = 1;                                                // palette
    for (std::size_t i = 0; i < tiles; ++i) {
      shape[row_bytes + 2 * i] = 64;
      shape[rows + i] = 16;
    }
    std::uint32_t seed = 7;
    for (auto& tile : values)
      for (std::uint32_t& two : tile) {
        // Sign and mantissa of either without a pattern, exponents of 0.5.
        seed = seed * 1664525u + 1013904223u;
        two = (seed & 0x807f807fu) | 0x3f003f00u;
      }
  }
};
constexpr Tiles tiles;

void multiply_tiles() {
  std::int64_t left = tile_loops;
  asm volatile(
      "ldtilecfg (%1)\n"
      "tilezero %%tmm0\ntilezero %%tmm1\ntilezero %%tmm2\ntilezero %%tmm3\n"
      "tileloadd (%2,%3), %%tmm4\ntileloadd 1024(%2,%3), %%tmm5\n"
      "tileloadd 2048(%2,%3), %%tmm6\ntileloadd 3072(%2,%3), %%tmm7\n"
      ".p2align 6\n1:\n"
      "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\ntdpbf16ps %%tmm7, %%tmm4, %%tmm1\n"
      "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\ntdpbf16ps %%tmm7, %%tmm5, %%tmm3\n"
      "dec %0\njnz 1b\n"
      "tilerelease\n"
      : "+r"(left)
      : "r"(&tiles.shape), "r"(&tiles.values), "r"(std::int64_t{64})
      : "cc", "memory");
}

// Of `count` loops of two turns, in which each of 12 registers of `lanes` numbers is worked on once.
constexpr double operations(std::int64_t count, int lanes) {
  return 2.0 * 12 * lanes * static_cast<double>(count);
}

#elif defined(__aarch64__)

constexpr std::int64_t loops = 16'000;

struct alignas(64) Operands {
  std::array<float, 4> a = numbers<4>(1, 1), b = numbers<4>(2, 1), c = numbers<4>(3, -1);
};
constexpr Operands operands;

// 16 sums; each grows by a x b, then by c x b, which is as large and negative.
void multiply_add() {
  std::int64_t left = loops;
  asm volatile(
      "ld1 {v28.4s, v29.4s, v30.4s}, [%1]\n"
      ".irp r,0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23\nmov v\\r\\().16b, v28.16b\n.endr\n"
      ".p2align 6\n1:\n"
      ".irp r,0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23\nfmla v\\r\\().4s, v28.4s, v29.4s\n.endr\n"
      ".irp r,0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23\nfmla v\\r\\().4s, v30.4s, v29.4s\n.endr\n"
      "subs %0, %0, #1\nb.ne 1b\n"
      : "+r"(left)
      : "r"(&operands)
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20",
        "v21", "v22", "v23", "v28", "v29", "v30");
}

#else
#error "no loop of multiply-adds for this architecture"
#endif

}  // namespace

#if defined(__x86_64__)
RegisterLoop register_loop(InstructionSet set, DType type) {
  if (type == DType::bf16 && set == InstructionSet::amx)
    return {multiply_tiles, 2.0 * 4 * 16 * 16 * 32 * static_cast<double>(tile_loops)};
  if (type == DType::bf16 && set == InstructionSet::avx512_bf16)
    return {sum_products_of_pairs, 4 * operations(loops, 16)};  // of two pairs, and their sum
  if (set >= InstructionSet::avx512) return {multiply_add_avx512, 2 * operations(loops, 16)};
  if (set == InstructionSet::avx2) return {multiply_add_avx2, 2 * operations(2 * loops, 8)};
  return {multiply_and_add_sse2, operations(2 * loops, 4)};
}
#else
RegisterLoop register_loop(InstructionSet, DType) {
  return {multiply_add, 2.0 * 2 * 16 * 4 * static_cast<double>(loops)};
}
#endif

}  // namespace muster
