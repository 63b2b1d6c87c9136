#include "model/ops/cuda/workspace.hpp"

namespace muster::cuda {

KernelTable with_workspaces(std::span<const NamedKernel> kernels) {
  static const std::map<std::string_view, KernelWorkspace> workspaces = {
      {"attention", attention_workspace},
      {"attention_gradient", attention_gradient_workspace},
      {"cached_attention", cached_attention_workspace},
      {"embedding_gradient", embedding_gradient_workspace},
      {"linear", linear_workspace},
      {"linear_cross_entropy", linear_cross_entropy_workspace},
      {"linear_input_gradient", linear_input_gradient_workspace},
      {"linear_weight_gradient", linear_weight_gradient_workspace},
      {"norm_gradient", norm_gradient_workspace},
  };
  KernelTable table;
  for (const NamedKernel& kernel : kernels) {
    const auto found = workspaces.find(kernel.name);
    table[kernel.name] = {kernel.run, found == workspaces.end() ? nullptr : found->second};
  }
  return table;
}

}  // namespace muster::cuda
