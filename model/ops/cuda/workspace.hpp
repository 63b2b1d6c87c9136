// Workspaces of the CUDA kernels, from shapes alone: plans are made where no GPU is. Compiled into every build;
// the functions for an op stand in workspace_NAME.cpp, beside constants that its kernel shares.
#pragma once

#include "model/ops/kernel.hpp"

namespace muster::cuda {

using Types = std::span<const TensorType>;
std::uint64_t attention_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t attention_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t cached_attention_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t embedding_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_cross_entropy_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_input_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t linear_weight_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);
std::uint64_t norm_gradient_workspace(const Op&, Types inputs, Types outputs, int threads);

// The table of table.cpp and of no_cuda.cpp: kernels by name, the workspaces filled in here.
struct NamedKernel {
  std::string_view name;
  KernelRun run;
};
KernelTable with_workspaces(std::span<const NamedKernel> kernels);

}  // namespace muster::cuda
