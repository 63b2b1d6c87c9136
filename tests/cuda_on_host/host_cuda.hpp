// What the stand-ins of the CUDA runtime, cuBLASLt and NCCL share: how work gets on a stream, and what
// ThreadSanitizer is shown of it.
//
// One rule holds everything together: locks and atomics of the stand-in itself are hidden from ThreadSanitizer
// (Hidden), and only the orderings that CUDA promises are shown to it (release, acquire). Otherwise a mutex in the
// stand-in would order two streams, and a missing wait between them would never be seen.
#pragma once

#include <cstddef>
#include <cuda_runtime.h>
#include <functional>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CUDA_ON_HOST_SANITIZED 1
#endif

namespace cuda_on_host {

// While one lives, its thread neither races nor synchronises, as ThreadSanitizer sees it. They nest. Around locks,
// waits and tables of a stand-in; never around reads and writes of the program's own data.
class Hidden {
 public:
#ifdef __SANITIZE_THREAD__
  Hidden();
  ~Hidden();
#else
  Hidden() {}
  ~Hidden() {}
#endif
  Hidden(const Hidden&) = delete;
  Hidden& operator=(const Hidden&) = delete;
};

// An ordering that CUDA promises: what came before release(token) happens before what follows acquire(token). They
// work inside of Hidden, too. Releases add up: take a token of its own (on the heap) for each promise.
#ifdef __SANITIZE_THREAD__
void release(void* token);
void acquire(void* token);
#else
inline void release(void*) {}
inline void acquire(void*) {}
#endif

// Accesses that the compiler did not instrument (an inner loop with no_sanitize) but the sanitizers should check.
#ifdef CUDA_ON_HOST_SANITIZED
void reads(const void* data, std::size_t bytes);
void writes(void* data, std::size_t bytes);
#else
inline void reads(const void*, std::size_t) {}
inline void writes(void*, std::size_t) {}
#endif

// Appends work to a stream, or to the graph that it captures; a report about it names the lines that called this.
// The work runs on the stream's thread and may touch device memory.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

// What cudaGetLastError returns next, unless it is cudaSuccess; returns it.
cudaError_t fail(cudaError_t error);

// CUDA_ON_HOST_<name> of the environment as a number.
long setting(const char* name, long otherwise);

// CUDA_ON_HOST_FAIL="cudaMalloc:3=2" makes the third call of cudaMalloc fail with error 2 ("cudaMalloc": the first,
// with the error that is usual there). Returns the error for this call of `function`, or 0.
int injected_failure(const char* function, int usual_error);

}  // namespace cuda_on_host
