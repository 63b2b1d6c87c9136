// Attention by a library (cuDNN). What it refuses, kernels of our own compute (attention.cu).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/ops/attention.hpp"
#include "model/ops/kernel.hpp"

namespace muster::cuda {

class AttentionLibrary {
 public:
  virtual ~AttentionLibrary() = default;
  virtual std::string version() const = 0;
  // Why it does not compute this attention and its gradient; empty: it does. Decided from types, so that it holds for
  // the whole of a plan. `segments`: the most that their starts may tell; 0: there are none.
  virtual std::string refusal(const AttentionShape& shape, const TensorType& q_source,
                              const TensorType& kv_source, std::int64_t segments) = 0;
  virtual void forward(const AttentionShape& shape, const KernelArgs& args) = 0;
  virtual void gradient(const AttentionShape& shape, bool same_source, const KernelArgs& args) = 0;
};

// cuDNN's for the current GPU, or in a build without it one that refuses everything.
std::unique_ptr<AttentionLibrary> make_attention_library();

// cuDNN's for a GPU that is elsewhere, by its properties as cuDNN writes them (JSON): it plans and refuses as there,
// and computes nothing. Only in builds with cuDNN.
std::unique_ptr<AttentionLibrary> make_attention_library_for(const std::string& device_properties,
                                                             int compute_capability);

// What the library computes at once of a gradient. The same bits every time cost it a workspace of queries x keys for
// each head, so the batch is cut into slices, one after another: of some samples (segments, where they are told) with all
// heads, or of one sample with some heads.
struct LibrarySlice {
  std::int64_t samples = 1;
  int kv_heads = 1;
};
LibrarySlice library_gradient_slice(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                                    std::int64_t segments);

// Why attention of these shapes is not left to the library; empty: it is, unless it refuses where the GPU is. Where it
// is not, plans have no workspace for it.
std::string library_unsuited(const AttentionShape& shape, DType type, std::int64_t queries, std::int64_t keys,
                             std::int64_t segments);

// The most workspace that the library may take for these; more, and it refuses. In workspace_attention_library.cpp.
std::uint64_t library_workspace(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                                std::int64_t segments);
std::uint64_t library_gradient_workspace(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                                         std::int64_t segments);

}  // namespace muster::cuda
