// What CUDA promises of a kernel's threads, of the fibers that stand for them.
#include <bit>
#include <gtest/gtest.h>
#include <vector>

#include "core/cuda/launch.hpp"
#include "core/device.hpp"

namespace muster {
namespace {

// Runs a kernel that writes `count` ints, and returns them.
template <class... P>
std::vector<int> written(int count, dim3 grid, dim3 block, void (*kernel)(int*, P...),
                         std::type_identity_t<P>... arguments) {
  const auto device = cuda_device(0);
  MemoryAccount account;
  const auto bytes = static_cast<std::uint64_t>(count) * sizeof(int);
  const Buffer memory(account, MemoryKind::data, bytes, device->memory());
  const Buffer host(account, MemoryKind::data, bytes, device->staging());
  const auto stream = device->make_stream(StreamPriority::normal);
  stream->enqueue([&](NativeStream native) {
    launch(kernel, grid, block, 0, native, memory.as<int>().data(), arguments...);
  });
  stream->copy(host.data(), memory.data(), bytes);
  stream->synchronize();
  return {host.as<int>().begin(), host.as<int>().end()};
}

__global__ void shuffles(int* out, int width) {
  const int lane = static_cast<int>(threadIdx.x);
  int* mine = out + lane * 4;
  mine[0] = __shfl_sync(0xffffffffu, lane, 3, width);
  mine[1] = __shfl_xor_sync(0xffffffffu, lane, 1, width);
  mine[2] = __shfl_down_sync(0xffffffffu, lane, 2, width);
  mine[3] = __shfl_up_sync(0xffffffffu, lane, 2, width);
}

TEST(KernelThreads, shuffles_stay_inside_of_groups_of_their_width) {
  for (const int width : {32, 8, 4}) {
    const auto seen = written(32 * 4, 1, 32, shuffles, width);
    for (int lane = 0; lane < 32; ++lane) {
      const int inside = lane % width, begin = lane - inside;
      const int* mine = seen.data() + lane * 4;
      EXPECT_EQ(mine[0], begin + 3);
      EXPECT_EQ(mine[1], lane ^ 1);
      EXPECT_EQ(mine[2], inside + 2 < width ? lane + 2 : lane);
      EXPECT_EQ(mine[3], inside >= 2 ? lane - 2 : lane);
    }
  }
}

// Each half of the warp exchanges by itself, the lower one twice as often.
__global__ void halves(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const bool lower = lane < 16;
  const unsigned mask = lower ? 0x0000ffffu : 0xffff0000u;
  int sum = lane;
  for (int distance = 8; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(mask, sum, distance);
    if (lower) __syncwarp(mask);
  }
  out[lane] = sum;
}

TEST(KernelThreads, lanes_wait_only_for_those_of_their_mask) {
  const auto seen = written(32, 1, 32, halves);
  for (int lane = 0; lane < 32; ++lane)
    EXPECT_EQ(seen[static_cast<std::size_t>(lane)], lane < 16 ? 120 : 376);
}

__global__ void votes(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  out[i * 3] = static_cast<int>(__ballot_sync(0xffffffffu, i % 3 == 0));
  out[i * 3 + 1] = __any_sync(0xffffffffu, i == 5);
  out[i * 3 + 2] = __all_sync(0xffffffffu, i < 40);
}

TEST(KernelThreads, votes_are_those_of_the_warp_even_of_a_short_one) {
  const auto seen = written(40 * 3, 1, 40, votes);
  for (int i = 0; i < 40; ++i) {
    int ballot = 0;
    for (int k = i / 32 * 32; k < std::min(40, i / 32 * 32 + 32); ++k)
      if (k % 3 == 0) ballot |= 1 << (k % 32);
    EXPECT_EQ(seen[static_cast<std::size_t>(i * 3)], ballot);
    EXPECT_EQ(seen[static_cast<std::size_t>(i * 3 + 1)], i < 32);
    EXPECT_EQ(seen[static_cast<std::size_t>(i * 3 + 2)], 1);
  }
}

__global__ void reverse(int* out) {
  __shared__ int values[96];
  const int i = static_cast<int>(threadIdx.x + blockDim.x * threadIdx.y);
  values[i] = i + static_cast<int>(blockIdx.x) * 100;
  if (i >= 64) return;  // barriers do not wait for threads that have ended
  __syncthreads();
  out[static_cast<int>(blockIdx.x) * 64 + i] = values[63 - i];
}

TEST(KernelThreads, a_barrier_waits_for_all_threads_that_have_not_ended) {
  const auto seen = written(3 * 64, 3, {16, 6}, reverse);
  for (int i = 0; i < 3 * 64; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i / 64 * 100 + 63 - i % 64);
}

// The last block to come adds what all blocks left.
__global__ void last_block_sums(int* out) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  if (threadIdx.x != 0) return;
  out[1 + block] = block + 1;
  __threadfence();
  if (atomicAdd(out, 1) + 1 < blocks) return;
  __threadfence();
  int sum = 0;
  for (int b = 0; b < blocks; ++b) sum += out[1 + b];
  out[1 + blocks] = sum;
}

TEST(KernelThreads, the_last_block_sees_what_the_others_wrote_before_their_fence) {
  EXPECT_EQ(written(2 + 9, 9, 32, last_block_sums).back(), 45);
}

__global__ void nothing(int*) {}

TEST(KernelThreads, launches_beyond_the_limits_of_a_gpu_are_refused) {
  EXPECT_THROW(written(1, 1, 1025, nothing), Defect);
  EXPECT_THROW(written(1, {1, 70000}, 32, nothing), Defect);
  EXPECT_THROW(written(1, 0, 32, nothing), Defect);
  EXPECT_NO_THROW(written(1, 1, 1024, nothing));
}

}  // namespace
}  // namespace muster
