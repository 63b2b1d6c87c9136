// What a kernel gets, and the table in which a backend lists its kernels.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "core/instruction_set.hpp"
#include "core/stream.hpp"
#include "core/tensor.hpp"
#include "model/ops/op.hpp"

namespace muster {

// What changes from step to step. It lies in the device's memory, so that a recorded step can be replayed.
struct StepScalars {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t first_slot = 0;  // sample slot, in the global batch, of the micro-batch's first sequence
  std::uint32_t kv_length = 0;   // positions already in the KV cache
};

// What a backend's kernels keep from call to call: handles of libraries, chosen algorithms.
class KernelContext {
 public:
  virtual ~KernelContext() = default;
  // What a user should know of how this op will be computed: a slower way than the best, and why; mostly empty.
  virtual std::string remark(const Op&, std::span<const TensorType>) { return {}; }
  // Names and versions of the libraries that compute: bits depend on them.
  virtual std::string libraries() const = 0;
};

struct KernelArgs {
  std::span<const TensorView> inputs;
  std::span<const TensorView> outputs;
  std::byte* workspace = nullptr;        // as many bytes as the kernel asked for, aligned to 4096
  const StepScalars* scalars = nullptr;  // in the device's memory
  std::uint32_t random_key = 0;   // hash of the node's scoped name: the fourth word of the Philox counter
  bool accumulate = false;        // outputs for which op.accumulates(i) are added to instead of overwritten
  NativeStream stream = nullptr;  // where a GPU's kernels go
  KernelContext* context = nullptr;  // null on CPUs
};

// A CPU's kernel computes when it is called; a GPU's puts itself on args.stream.
using KernelRun = void (*)(const Op& op, const KernelArgs& args);
// Bytes of workspace for these types when `threads` threads run; the result's bits never depend on threads.
// It needs no device: a plan can be made for one that is elsewhere.
using KernelWorkspace = std::uint64_t (*)(const Op& op, std::span<const TensorType> inputs,
                                          std::span<const TensorType> outputs, int threads);

struct Kernel {
  KernelRun run = nullptr;
  KernelWorkspace workspace = nullptr;  // null: none
};

// The kernels of a backend, by op name.
using KernelTable = std::map<std::string_view, Kernel>;
const KernelTable& cpu_kernels(InstructionSet set = instruction_set());
const KernelTable& cuda_kernels();  // built without CUDA it serves for planning: its kernels throw

}  // namespace muster
