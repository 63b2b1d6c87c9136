// What stands in for core/cuda/launch.hpp where kernels run on the host: a launch puts the kernel on the stream's thread,
// after the checks that CUDA makes of its shape.
#pragma once

#include <cstddef>
#include <type_traits>

#include "core/cuda/check.hpp"
#include "core/stream.hpp"
#include "tests/cuda_on_host/device_functions.hpp"

namespace cuda_on_host {

// cudaSuccess if the current device takes such a launch on this stream.
cudaError_t check_launch(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
                         cudaStream_t stream);
void allow_shared_bytes(const void* kernel, std::size_t bytes);
// Puts a kernel on the stream: kernel(arguments) is one thread of it.
cudaError_t launch_kernel(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                          std::function<void()> kernel);

}  // namespace cuda_on_host

namespace muster {

template <class... P>
__attribute__((noinline)) void launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                                      NativeStream stream, std::type_identity_t<P>... arguments) {
  auto* const queue = static_cast<cudaStream_t>(stream);
  const auto* const key = reinterpret_cast<const void*>(kernel);
  check_cuda(cuda_on_host::check_launch(key, grid, block, shared_bytes, queue), "launching a kernel");
  check_cuda(cuda_on_host::launch_kernel(grid, block, shared_bytes, queue, [=] { kernel(arguments...); }),
             "launching a kernel");
}

template <class... P>
void allow_shared(void (*kernel)(P...), std::size_t bytes) {
  cuda_on_host::allow_shared_bytes(reinterpret_cast<const void*>(kernel), bytes);
}

}  // namespace muster

#define MUSTER_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(::cuda_on_host::current->shared)
