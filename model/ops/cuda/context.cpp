#include "model/ops/cuda/context.hpp"

#include <cublasLt.h>
#include <fmt/format.h>

#include "core/cuda/check.hpp"
#include "model/backend.hpp"
#include "model/ops/cuda/attention_workspace.hpp"

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

std::string cuda::Context::remark(const Op& op, std::span<const TensorType> inputs) {
  const auto* const forward = dynamic_cast<const Attention*>(&op);
  if (forward == nullptr) return {};
  const AttentionShape& shape = forward->shape();
  const std::int64_t segments = segment_bound(inputs[2]);
  if (inputs[0].dtype == DType::f32) return {};  // nobody asks cuDNN for that
  const std::string refusal = attention->refusal(shape, inputs[0], inputs[1], segments);
  return refusal.empty()
             ? refusal
             : "attention is computed by Muster's own kernels, because cuDNN's is refused: " + refusal;
}

std::string cuda::Context::libraries() const {
  return fmt::format("cuBLASLt {}, {}", cublasLtGetVersion(), attention->version());
}

std::shared_ptr<KernelContext> make_cuda_context() { return std::make_shared<cuda::Context>(); }

}  // namespace muster
