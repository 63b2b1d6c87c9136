// Matrix products of a warp on tensor cores: bf16 factors, sums in f32, by the instructions that sm_80 and all later
// ones have. Elsewhere (kernels run on the host) the same lanes hold the same elements and exchange them.
//
// With g = lane / 4 and t = lane % 4, a block of 16 x 16 lies in a warp like this, two neighbours in a word:
//   left factor:  words (row g, column 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
//   sums:         halves of 8 columns; in each (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// so that sums, rounded and packed, are a left factor.
// Source: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix".
#pragma once

#include "model/ops/cuda/device.cuh"

namespace muster::cuda {

struct Fragment {
  std::uint32_t words[4];
};
struct SumBlock {
  float halves[2][4];
};

__device__ inline std::uint32_t pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  std::uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}

__device__ inline Fragment pack_block(const SumBlock& sums) {
  const auto& [low, high] = sums.halves;
  return {pack_pair(low[0], low[1]), pack_pair(low[2], low[3]), pack_pair(high[0], high[1]),
          pack_pair(high[2], high[3])};
}

// 16 x 16 elements of shared memory with `stride` elements from row to row, as a left factor. Rows begin at multiples
// of 16 bytes; they fall into banks of their own where the stride is an odd number of these.
__device__ inline Fragment load_fragment(const __nv_bfloat16* tile, int stride) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  Fragment x;
#ifdef __CUDA_ARCH__
  const auto row = static_cast<unsigned>(__cvta_generic_to_shared(tile + lane % 16 * stride + lane / 16 * 8));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.words[0]), "=r"(x.words[1]), "=r"(x.words[2]), "=r"(x.words[3])
               : "r"(row)
               : "memory");
#else
  for (int i = 0; i < 4; ++i)
    memcpy(&x.words[i], tile + (lane / 4 + i % 2 * 8) * stride + lane % 4 * 2 + i / 2 * 8, sizeof x.words[i]);
#endif
  return x;
}

// The same block transposed.
__device__ inline Fragment load_transposed(const __nv_bfloat16* tile, int stride) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  Fragment x;
#ifdef __CUDA_ARCH__
  const auto row = static_cast<unsigned>(
      __cvta_generic_to_shared(tile + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.words[0]), "=r"(x.words[1]), "=r"(x.words[2]), "=r"(x.words[3])
               : "r"(row)
               : "memory");
#else
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat16* at = tile + (lane % 4 * 2 + i / 2 * 8) * stride + lane / 4 + i % 2 * 8;
    memcpy(&x.words[i], at, sizeof(__nv_bfloat16));
    memcpy(reinterpret_cast<char*>(&x.words[i]) + 2, at + stride, sizeof(__nv_bfloat16));
  }
#endif
  return x;
}

// Sums of 16 x 8 += left factor * transpose of (words first, second: 8 rows g, columns 2t and 2t + 8).
__device__ inline void multiply_half(const Fragment& left, std::uint32_t first, std::uint32_t second,
                                     float (&sums)[4]) {
#ifdef __CUDA_ARCH__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]), "r"(first),
        "r"(second));
#else
  constexpr int most_warps = 32;
  __shared__ std::uint32_t exchange[most_warps][6][warp_size];
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  auto& words = exchange[static_cast<int>(threadIdx.x) / warp_size];
  for (int i = 0; i < 4; ++i) words[i][lane] = left.words[i];
  words[4][lane] = first;
  words[5][lane] = second;
  __syncwarp();
  const auto element = [&](int word, int of_lane, int half) {
    const std::uint32_t pair = words[word][of_lane], bits = half == 0 ? pair << 16 : pair & 0xffff0000u;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
  };
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) {
      const int left_lane = lane / 4 * 4 + k % 8 / 2, right_lane = (lane % 4 * 2 + i % 2) * 4 + k % 8 / 2;
      sums[i] =
          fmaf(element(i / 2 + k / 8 * 2, left_lane, k % 2), element(4 + k / 8, right_lane, k % 2), sums[i]);
    }
  __syncwarp();
#endif
}

// sums += left * transpose(right), `right` as load_fragment gives it of 16 rows that become columns.
__device__ inline void multiply_add(const Fragment& left, const Fragment& right, SumBlock& sums) {
  multiply_half(left, right.words[0], right.words[2], sums.halves[0]);
  multiply_half(left, right.words[1], right.words[3], sums.halves[1]);
}

}  // namespace muster::cuda
