// What a kernel gets, and the table in which a backend lists its kernels.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>

#include "core/tensor.hpp"
#include "model/ops/op.hpp"

namespace muster {

// What changes from step to step. On a GPU it lies in device memory, so that a captured step can be replayed.
struct StepScalars {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t first_slot = 0;  // sample slot, in the global batch, of the micro-batch's first sequence
  std::uint32_t first_micro_batch = 1;  // 1: parameter gradients start from zero, 0: they are added to
  std::uint32_t kv_length = 0;          // positions already in the KV cache
};

struct KernelArgs {
  std::span<const TensorView> inputs;
  std::span<const TensorView> outputs;
  std::byte* workspace = nullptr;  // as many bytes as the kernel asked for, aligned to 4096
  const StepScalars* scalars = nullptr;
  std::uint32_t random_key = 0;  // hash of the node's scoped name: the fourth word of the Philox counter
  bool accumulate = false;       // outputs for which op.accumulates(i) are added to instead of overwritten
};

using KernelRun = void (*)(const Op& op, const KernelArgs& args);
// Bytes of workspace for these types when `threads` threads run; the result's bits never depend on threads.
using KernelWorkspace = std::uint64_t (*)(const Op& op, std::span<const TensorType> inputs,
                                          std::span<const TensorType> outputs, int threads);

struct Kernel {
  KernelRun run = nullptr;
  KernelWorkspace workspace = nullptr;  // null: none
};

// The kernels of a backend, by op name.
using KernelTable = std::map<std::string_view, Kernel>;
const KernelTable& cpu_kernels();

}  // namespace muster
