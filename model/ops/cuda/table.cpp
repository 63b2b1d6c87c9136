#include "model/ops/cuda/kernels.hpp"
#include "model/ops/cuda/workspace.hpp"

namespace muster {

const KernelTable& cuda_kernels() {
  using namespace cuda;
  static constexpr NamedKernel kernels[] = {
      {"add", add},
      {"attention", attention},
      {"attention_gradient", attention_gradient},
      {"cached_attention", cached_attention},
      {"cast", cast},
      {"dropout", dropout},
      {"embedding", embedding},
      {"embedding_gradient", embedding_gradient},
      {"gelu", gelu},
      {"gelu_erf", gelu_erf},
      {"gelu_erf_gradient", gelu_erf_gradient},
      {"gelu_gradient", gelu_gradient},
      {"linear", linear},
      {"linear_cross_entropy", linear_cross_entropy},
      {"linear_input_gradient", linear_input_gradient},
      {"linear_weight_gradient", linear_weight_gradient},
      {"norm_gradient", norm_gradient},
      {"renormalize", renormalize},
      {"residual_norm", residual_norm},
      {"rope", rope},
      {"swiglu", swiglu},
      {"swiglu_gradient", swiglu_gradient},
  };
  static const KernelTable table = with_workspaces(kernels);
  return table;
}

}  // namespace muster
