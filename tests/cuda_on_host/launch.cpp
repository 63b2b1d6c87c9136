// Launching kernels on the host: the limits of a launch, and the grid as work of a stream.
#include "tests/cuda_on_host/include/core/cuda/launch.hpp"

#include <map>

#include "tests/cuda_on_host/kernel_threads.hpp"
#include "tests/cuda_on_host/streams.hpp"

namespace cuda_on_host {
namespace {

// A kernel's own __shared__ arrays count, too, and nobody tells the host how large they are: 1 KiB stands for them.
constexpr std::size_t static_shared = 1 << 10;
constexpr std::size_t shared_without_asking = (48 << 10) - static_shared;
constexpr std::size_t shared_at_most = (227 << 10) - static_shared;

struct SharedLimits {
  std::mutex mutex;
  std::map<const void*, std::size_t> bytes;  // by kernel
};
SharedLimits& shared_limits() {
  static SharedLimits limits;
  return limits;
}

bool has_valid_shape(dim3 grid, dim3 block) {
  const auto between = [](std::size_t low, std::size_t x, std::size_t high) { return low <= x && x <= high; };
  return between(1, block.x, 1024) && between(1, block.y, 1024) && between(1, block.z, 64) &&
         std::size_t{block.x} * block.y * block.z <= 1024 && between(1, grid.x, 0x7fffffff) &&
         between(1, grid.y, 65535) && between(1, grid.z, 65535);
}

}  // namespace

cudaError_t check_launch(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
                         cudaStream_t stream) {
  const Hidden hidden;
  if (broken() != cudaSuccess) return broken();
  if (!has_valid_shape(grid, block)) return fail(cudaErrorInvalidConfiguration);
  if (resolve(stream)->device != current_device()) return fail(cudaErrorInvalidResourceHandle);
  const std::lock_guard lock(shared_limits().mutex);
  const auto asked = shared_limits().bytes.find(kernel);
  const std::size_t limit = asked == shared_limits().bytes.end() ? shared_without_asking : asked->second;
  return fail(shared_bytes <= limit ? cudaSuccess : cudaErrorInvalidValue);
}

void allow_shared_bytes(const void* kernel, std::size_t bytes) {
  muster::check_cuda(bytes <= shared_at_most ? cudaSuccess : fail(cudaErrorInvalidValue),
                     "asking for shared memory");
  const Hidden hidden;
  const std::lock_guard lock(shared_limits().mutex);
  shared_limits().bytes[kernel] = bytes;
}

__attribute__((noinline)) cudaError_t launch_kernel(dim3 grid, dim3 block, std::size_t shared_bytes,
                                                    cudaStream_t stream, std::function<void()> kernel) {
  return enqueue(stream, [grid, block, shared_bytes, kernel = std::move(kernel)] {
    if (const int error = injected_failure("kernel", cudaErrorLaunchFailure))
      return break_device(static_cast<cudaError_t>(error));
    run_grid(
        grid, block, shared_bytes,
        [](const void* body) { (*static_cast<const std::function<void()>*>(body))(); }, &kernel);
  });
}

}  // namespace cuda_on_host
