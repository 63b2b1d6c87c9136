#include "model/ops/cuda/embedding_sort.hpp"
#include "model/ops/cuda/workspace.hpp"

namespace muster::cuda {

std::uint64_t embedding_gradient_workspace(const Op&, Types inputs, Types, int) {
  return embedding_sort_bytes(inputs[0].elements());
}

}  // namespace muster::cuda
