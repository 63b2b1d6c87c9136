// What stands for the CUDA kernels in a build without CUDA: enough to plan for a GPU that is elsewhere.
#include <vector>

#include "core/error.hpp"
#include "model/backend.hpp"
#include "model/ops/cuda/workspace.hpp"

namespace muster {
namespace {

[[noreturn]] void refuse() { throw Defect("a CUDA kernel runs in a build without CUDA"); }

}  // namespace

const KernelTable& cuda_kernels() {
  static const KernelTable table = [] {
    std::vector<cuda::NamedKernel> kernels;
    for (const auto& [name, kernel] : cpu_kernels())
      kernels.push_back({name, [](const Op&, const KernelArgs&) { refuse(); }});
    return cuda::with_workspaces(kernels);
  }();
  return table;
}

std::shared_ptr<KernelContext> make_cuda_context() { refuse(); }

}  // namespace muster
