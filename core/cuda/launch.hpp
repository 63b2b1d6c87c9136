// The only two things that a kernel file may not write natively, because a host compiler cannot read them: the
// launch, and dynamic shared memory. (tests/cuda_on_host has this header, too, for kernels run on the host.)
#pragma once

#include <cstddef>
#include <type_traits>

#include "core/cuda/check.hpp"
#include "core/stream.hpp"

namespace muster {

template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes, NativeStream stream,
            std::type_identity_t<P>... arguments) {
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  check_cuda(cudaGetLastError(), "launching a kernel");
}

// Lets `kernel` take more dynamic shared memory than the 48 KiB that need no asking.
template <class... P>
void allow_shared(void (*kernel)(P...), std::size_t bytes) {
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
      "asking for shared memory");
}

}  // namespace muster

#define MUSTER_DYNAMIC_SHARED(T, name)                          \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  T* name = reinterpret_cast<T*>(name##_bytes)
