// What the CUDA kernels keep from call to call: facts of the GPU, handles of libraries, chosen algorithms. One for
// each device that a process drives; used by one thread at a time.
#pragma once

#include <memory>

#include "model/ops/cuda/attention_library.hpp"
#include "model/ops/cuda/matmul.hpp"
#include "model/ops/kernel.hpp"

namespace muster::cuda {

struct Context final : KernelContext {
  Context();
  std::string remark(const Op& op, std::span<const TensorType> inputs) override;
  std::string libraries() const override;

  int multiprocessors = 1;
  int shared_bytes = 48 << 10;  // of a block, at most
  Matmuls matmuls;
  std::unique_ptr<AttentionLibrary> attention;  // never null
};

inline Context& context_of(const KernelArgs& args) { return static_cast<Context&>(*args.context); }

}  // namespace muster::cuda
