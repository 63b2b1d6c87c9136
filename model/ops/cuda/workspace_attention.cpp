#include <algorithm>

#include "core/error.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/cuda/attention_library.hpp"
#include "model/ops/cuda/attention_workspace.hpp"
#include "model/ops/cuda/workspace.hpp"

namespace muster::cuda {
namespace {

void expect_served(const AttentionShape& shape) {
  if (shape.head_size > largest_head)
    throw UserError("heads of {} are more than the {} that attention on GPUs serves: raise model.heads",
                    shape.head_size, largest_head);
}

}  // namespace

std::uint64_t attention_workspace(const Op& op, Types inputs, Types, int) {
  const AttentionShape& shape = static_cast<const Attention&>(op).shape();
  expect_served(shape);
  const std::int64_t queries = inputs[0].rows() / shape.batch, keys = inputs[1].rows() / shape.batch;
  const std::int64_t segments = segment_bound(inputs[2]);
  if (!library_unsuited(shape, inputs[0].dtype, queries, keys, segments).empty()) return 0;
  return library_workspace(shape, queries, keys, segments);
}

// Whether the library computes instead of our own kernels is known only where it is.
std::uint64_t attention_gradient_workspace(const Op& op, Types inputs, Types, int) {
  const AttentionShape& shape = static_cast<const AttentionGradient&>(op).shape();
  expect_served(shape);
  const std::int64_t queries = inputs[1].rows() / shape.batch, keys = inputs[2].rows() / shape.batch;
  const std::int64_t segments = segment_bound(inputs[5]);
  const std::uint64_t own = GradientLayout(shape, queries, !inputs[5].shape.empty()).bytes;
  if (!library_unsuited(shape, inputs[1].dtype, queries, keys, segments).empty()) return own;
  return std::max(own, library_gradient_workspace(shape, queries, keys, segments));
}

// Of a single query: what each split leaves for each head, D sums and two statistics.
std::uint64_t cached_attention_workspace(const Op& op, Types inputs, Types, int) {
  const AttentionShape& shape = static_cast<const CachedAttention&>(op).shape();
  expect_served(shape);
  if (inputs[0].rows() != shape.batch) return 0;
  const std::int64_t splits = cached_splits(inputs[1].rows() / shape.batch);
  return static_cast<std::uint64_t>(shape.batch * shape.heads * splits * (shape.head_size + 2)) *
         sizeof(float);
}

}  // namespace muster::cuda
