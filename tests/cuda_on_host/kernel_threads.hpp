// The threads of a CUDA kernel on the host: a fiber each, switched where threads wait for one another.
//
// A block runs on the thread of its stream, warp after warp. Under ThreadSanitizer each CUDA thread is a thread of its
// own to it, and the blocks of a grid run on two real threads; CUDA_ON_HOST_THREADS=0 shows it the streams only, which
// is far faster. CUDA_ON_HOST_SEED=n runs the threads of a block, and the blocks of a grid, in a shuffled order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>

namespace cuda_on_host {

// What a kernel may ask of the thread that runs it.
struct ThreadIndex {
  uint3 thread{};
  uint3 block{};
  dim3 block_size;
  dim3 grid_size;
  std::byte* shared = nullptr;  // dynamic shared memory of its block
};
inline constinit thread_local ThreadIndex* current = nullptr;

// Runs kernel(arguments) for every thread of the grid, on a stream's thread.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(const void*),
              const void* arguments);

// Shuffles them anew from the next kernel on, as CUDA_ON_HOST_SEED does from the start; 0: not at all.
void shuffle_threads(std::uint64_t seed);

// What the current CUDA thread can wait for.
void wait_for_block();
void wait_for_warp(unsigned mask);

// All lanes of the mask give `bytes` (at most 16) and get those of `source`, a lane of their own warp.
void exchange_in_warp(unsigned mask, void* value, std::size_t bytes, unsigned source);
// Bit i: lane i of the mask gave true.
unsigned ballot_in_warp(unsigned mask, bool vote);
unsigned lane();

// A fence orders everything: what came before it in any thread before what follows a later one.
void fence();

}  // namespace cuda_on_host
