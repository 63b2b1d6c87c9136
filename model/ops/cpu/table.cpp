#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

const KernelTable& kernels() {
  static const KernelTable table = {
      {"add", {add}},
      {"attention", {attention, attention_workspace}},
      {"attention_gradient", {attention_gradient, attention_gradient_workspace}},
      {"cached_attention", {cached_attention, cached_attention_workspace}},
      {"cast", {cast}},
      {"dropout", {dropout}},
      {"embedding", {embedding}},
      {"embedding_gradient", {embedding_gradient, embedding_gradient_workspace}},
      {"gelu", {gelu}},
      {"gelu_erf", {gelu_erf}},
      {"gelu_erf_gradient", {gelu_erf_gradient}},
      {"gelu_gradient", {gelu_gradient}},
      {"linear", {linear, linear_workspace}},
      {"linear_cross_entropy", {linear_cross_entropy, linear_cross_entropy_workspace}},
      {"linear_input_gradient", {linear_input_gradient, linear_input_gradient_workspace}},
      {"linear_weight_gradient", {linear_weight_gradient, linear_weight_gradient_workspace}},
      {"norm_gradient", {norm_gradient, norm_gradient_workspace}},
      {"renormalize", {renormalize}},
      {"residual_norm", {residual_norm}},
      {"rope", {rope}},
      {"swiglu", {swiglu}},
      {"swiglu_gradient", {swiglu_gradient}},
  };
  return table;
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
