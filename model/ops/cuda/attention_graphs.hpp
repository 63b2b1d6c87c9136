// The graphs of attention and of its gradient, as cuDNN's frontend has them. Included by attention_cudnn.cpp alone: the
// frontend is one large header.
//
// Heads lie in rows of packed tensors and are told by strides; nothing is copied. cuDNN's softmax statistics are
// max + ln(sum of exponentials): our lse. Segments are a ragged batch (segment_layout.hpp).
#pragma once

#include <array>
#include <cudnn_frontend.h>
#include <map>
#include <memory>
#include <optional>

#include "model/ops/cuda/attention_library.hpp"

namespace muster::cuda {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

// By which cuDNN knows the tensors.
enum class Uid : std::int64_t {
  q = 1,
  k,
  v,
  o,
  lse,
  d_o,
  d_q,
  d_k,
  d_v,
  q_offsets,
  kv_offsets,
  o_offsets,
  lse_offsets,
  q_lengths,
  kv_lengths,
};

// All that a plan depends on.
struct Problem {
  AttentionShape shape;
  std::int64_t queries = 0, keys = 0;  // of a sample
  std::int64_t q_width = 0, kv_width = 0;
  std::int64_t segments = 0;

  using Key = std::array<std::int64_t, 13>;
  Key key() const {
    return {shape.batch,    shape.heads,    shape.kv_heads, shape.head_size, shape.causal,
            shape.q_column, shape.k_column, shape.v_column, queries,         keys,
            q_width,        kv_width,       segments};
  }
  std::int64_t o_width() const { return std::int64_t{shape.heads} * shape.head_size; }
  std::int64_t samples() const { return segments > 0 ? segments : shape.batch; }
  int group() const { return shape.heads / shape.kv_heads; }
};

// A GPU by its properties alone.
struct AbsentDevice {
  std::shared_ptr<fe::DeviceProperties> properties;
  int compute_capability;
};

// One graph, of a slice of the batch.
class GraphBuilder {
 public:
  GraphBuilder(const Problem& problem, LibrarySlice slice, const std::optional<AbsentDevice>& device)
      : problem_(problem), slice_(slice) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (device) graph_->set_device_properties(device->properties).set_sm_version(device->compute_capability);
    if (problem.segments == 0) return;
    const auto per_segment = [&](Uid uid, std::int64_t entries, fe::DataType_t type) {
      return graph_->tensor(fe::graph::Tensor_attributes()
                                .set_uid(static_cast<std::int64_t>(uid))
                                .set_data_type(type)
                                .set_alignment(type == fe::DataType_t::INT64 ? 8 : 4)
                                .set_dim({entries, 1, 1, 1})
                                .set_stride({1, 1, 1, 1}));
    };
    for (const Uid uid : {Uid::q_offsets, Uid::kv_offsets, Uid::o_offsets, Uid::lse_offsets})
      offsets_[uid] = per_segment(uid, slice.samples + 1, fe::DataType_t::INT64);
    query_lengths_ = per_segment(Uid::q_lengths, slice.samples, fe::DataType_t::INT32);
    key_lengths_ = per_segment(Uid::kv_lengths, slice.samples, fe::DataType_t::INT32);
  }

  std::shared_ptr<fe::graph::Graph> forward() {
    const auto [out, stats] = graph_->sdpa(queries(Uid::q), keys(Uid::k), keys(Uid::v),
                                           masked(fe::graph::SDPA_attributes()).set_generate_stats(true));
    lay(out, Uid::o, query_heads(), problem_.queries, problem_.o_width(), Uid::o_offsets).set_output(true);
    lay_lse(stats).set_output(true);
    return graph_;
  }

  std::shared_ptr<fe::graph::Graph> gradient() {
    const Tensor statistics = graph_->tensor(fe::graph::Tensor_attributes());
    lay_lse(statistics);
    const auto [dq, dk, dv] = graph_->sdpa_backward(
        queries(Uid::q), keys(Uid::k), keys(Uid::v), outputs(Uid::o), outputs(Uid::d_o), statistics,
        masked(fe::graph::SDPA_backward_attributes()).set_deterministic_algorithm(true));
    lay(dq, Uid::d_q, query_heads(), problem_.queries, problem_.q_width, Uid::q_offsets).set_output(true);
    lay(dk, Uid::d_k, slice_.kv_heads, problem_.keys, problem_.kv_width, Uid::kv_offsets).set_output(true);
    lay(dv, Uid::d_v, slice_.kv_heads, problem_.keys, problem_.kv_width, Uid::kv_offsets).set_output(true);
    return graph_;
  }

 private:
  std::int64_t query_heads() const { return slice_.kv_heads * problem_.group(); }

  // Heads of `length` rows of `width` columns.
  fe::graph::Tensor_attributes& lay(const Tensor& tensor, Uid uid, std::int64_t heads, std::int64_t length,
                                    std::int64_t width, Uid offsets) {
    const std::int64_t size = problem_.shape.head_size;
    tensor->set_uid(static_cast<std::int64_t>(uid))
        .set_data_type(fe::DataType_t::BFLOAT16)
        .set_dim({slice_.samples, heads, length, size})
        .set_stride({length * width, size, width, 1});
    if (problem_.segments > 0) tensor->set_ragged_offset(offsets_.at(offsets));
    return *tensor;
  }
  Tensor input() { return graph_->tensor(fe::graph::Tensor_attributes()); }
  Tensor queries(Uid uid) {
    const Tensor tensor = input();
    lay(tensor, uid, query_heads(), problem_.queries, problem_.q_width, Uid::q_offsets);
    return tensor;
  }
  Tensor keys(Uid uid) {
    const Tensor tensor = input();
    lay(tensor, uid, slice_.kv_heads, problem_.keys, problem_.kv_width, Uid::kv_offsets);
    return tensor;
  }
  Tensor outputs(Uid uid) {
    const Tensor tensor = input();
    lay(tensor, uid, query_heads(), problem_.queries, problem_.o_width(), Uid::o_offsets);
    return tensor;
  }
  fe::graph::Tensor_attributes& lay_lse(const Tensor& tensor) {
    tensor->set_uid(static_cast<std::int64_t>(Uid::lse))
        .set_data_type(fe::DataType_t::FLOAT)
        .set_alignment(sizeof(float))  // a slice begins with any sample and head
        .set_dim({slice_.samples, query_heads(), problem_.queries, 1})
        .set_stride({query_heads() * problem_.queries, problem_.queries, 1, 1});
    if (problem_.segments > 0) tensor->set_ragged_offset(offsets_.at(Uid::lse_offsets));
    return *tensor;
  }

  template <class Attributes>
  Attributes masked(Attributes attributes) const {
    attributes.set_attn_scale(problem_.shape.scale());
    if (problem_.shape.causal)
      attributes.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
    if (problem_.segments > 0)
      attributes.set_padding_mask(true).set_seq_len_q(query_lengths_).set_seq_len_kv(key_lengths_);
    return attributes;
  }

  const Problem& problem_;
  LibrarySlice slice_;
  std::shared_ptr<fe::graph::Graph> graph_ = std::make_shared<fe::graph::Graph>();
  std::map<Uid, Tensor> offsets_;
  Tensor query_lengths_, key_lengths_;
};

}  // namespace muster::cuda
