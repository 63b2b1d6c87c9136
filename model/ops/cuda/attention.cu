// Attention: who computes it, the library or kernels of our own, and what these are told.
#include <cmath>

#include "model/ops/attention.hpp"
#include "model/ops/cuda/attention_forward.cuh"
#include "model/ops/cuda/attention_gradient.cuh"
#include "model/ops/cuda/attention_workspace.hpp"
#include "model/ops/cuda/context.hpp"
#include "model/ops/cuda/kernels.hpp"

namespace muster::cuda {
namespace {

AttentionLibrary* library_for(const AttentionShape& shape, const TensorView& q, const TensorView& kv,
                              const TensorView& starts, const KernelArgs& args) {
  AttentionLibrary& library = *context_of(args).attention;
  const std::int64_t segments = starts ? segment_bound(*starts.type) : 0;
  return library.refusal(shape, *q.type, *kv.type, segments).empty() ? &library : nullptr;
}

}  // namespace

AttentionProblem attention_problem(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                                   const TensorView& query_starts, const TensorView& key_starts,
                                   const KernelArgs& args) {
  AttentionProblem problem;
  problem.heads = shape.heads;
  problem.kv_heads = shape.kv_heads;
  problem.head_size = shape.head_size;
  problem.queries = static_cast<int>(queries);
  problem.keys = static_cast<int>(keys);
  problem.causal = shape.causal;
  problem.scale = shape.scale();
  if (query_starts) {
    problem.query_starts = query_starts.as<const std::int32_t>();
    problem.key_starts = key_starts.as<const std::int32_t>();
    problem.start_count = static_cast<int>(query_starts.elements());
  }
  if (shape.dropout > 0) {
    check(args.scalars != nullptr, "dropout needs the step's scalars");
    problem.kept_factor = 1 / (1 - shape.dropout);
    problem.dropped_below = dropped_below(shape.dropout);
  }
  problem.random_key = args.random_key;
  problem.scalars = args.scalars;
  return problem;
}

void require_shared(const KernelArgs& args, int head_size, std::size_t bytes) {
  const int most = context_of(args).shared_bytes;
  if (bytes > static_cast<std::size_t>(most))
    throw UserError(
        "attention with heads of {} takes {} KiB of shared memory, and this GPU gives a block {}: "
        "choose smaller heads (model.heads) or another GPU",
        head_size, bytes >> 10, most >> 10);
}

void attention(const Op& op, const KernelArgs& args) {
  const AttentionShape& shape = static_cast<const Attention&>(op).shape();
  const TensorView &q = args.inputs[0], &kv = args.inputs[1], &query_starts = args.inputs[2];
  if (AttentionLibrary* library = library_for(shape, q, kv, query_starts, args))
    return library->forward(shape, args);
  const std::int64_t queries = q.rows() / shape.batch, keys = kv.rows() / shape.batch;
  const AttentionProblem problem =
      attention_problem(shape, queries, keys, query_starts, args.inputs[3], args);
  with_element_type(q.dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    const auto source = [&](const TensorView& tensor, std::int64_t rows, std::int64_t column) {
      return head_rows(tensor.as<const T>() + column, rows, tensor.columns(), shape.head_size);
    };
    const TensorView& o = args.outputs[0];
    const ForwardTensors<T> tensors{source(q, queries, shape.q_column), source(kv, keys, shape.k_column),
                                    source(kv, keys, shape.v_column),
                                    head_rows(o.as<T>(), queries, o.columns(), shape.head_size),
                                    args.outputs[1].as<float>()};
    attention_forward(shape, problem, tensors, false, args);
  });
}

void attention_gradient(const Op& op, const KernelArgs& args) {
  const auto& gradient = static_cast<const AttentionGradient&>(op);
  const TensorView &q = args.inputs[1], &kv = args.inputs[2], &query_starts = args.inputs[5];
  if (AttentionLibrary* library = library_for(gradient.shape(), q, kv, query_starts, args))
    return library->gradient(gradient.shape(), gradient.same_source(), args);
  own_attention_gradient(gradient, args);
}

}  // namespace muster::cuda
