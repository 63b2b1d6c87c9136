#include "model/ops/cuda/context.hpp"

#include "core/cuda/check.hpp"
#include "model/backend.hpp"

namespace muster {
namespace {

int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current GPU");
  check_cuda(cudaDeviceGetAttribute(&value, which, device), "asking a GPU for its attributes");
  return value;
}

}  // namespace

cuda::Context::Context()
    : multiprocessors(attribute(cudaDevAttrMultiProcessorCount)),
      shared_bytes(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)),
      attention(make_attention_library()) {}

std::shared_ptr<KernelContext> make_cuda_context() { return std::make_shared<cuda::Context>(); }

}  // namespace muster
