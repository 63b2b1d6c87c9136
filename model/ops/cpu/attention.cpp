#include "model/ops/attention.hpp"

#include "model/ops/cpu/attention_forward.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

using attention_forward::forward;
using attention_forward::Lengths;
using attention_forward::Sources;

template <class T>
void attention_of(const AttentionShape& shape, const KernelArgs& args) {
  const TensorView &q = args.inputs[0], &kv = args.inputs[1];
  const Lengths lengths{q.rows() / shape.batch, kv.rows() / shape.batch};
  const Sources<T> sources{q.as<const T>() + shape.q_column,
                           kv.as<const T>() + shape.k_column,
                           kv.as<const T>() + shape.v_column,
                           lengths.queries * q.columns(),
                           q.columns(),
                           lengths.keys * kv.columns(),
                           kv.columns()};
  forward(shape, sources, lengths, Mask(shape, lengths.queries, lengths.keys, args.inputs[2], args.inputs[3]),
          ProbabilityDropout(shape, lengths.queries, lengths.keys, args), args.outputs[0].as<T>(),
          args.outputs[1].as<float>(), args.workspace, lengths.keys);
}

}  // namespace

void attention(const Op& op, const KernelArgs& args) {
  const AttentionShape& shape = static_cast<const Attention&>(op).shape();
  if (args.inputs[0].dtype() == DType::bf16)
    attention_of<bf16>(shape, args);
  else
    attention_of<float>(shape, args);
}

std::uint64_t attention_workspace(const Op& op, Types inputs, Types, int threads) {
  const AttentionShape& shape = static_cast<const Attention&>(op).shape();
  return attention_forward::forward_bytes(inputs[0].dtype, shape.head_size, inputs[1].rows() / shape.batch,
                                          threads);
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
