// What attention's kernels and their workspaces share.
#pragma once

#include <cstdint>

#include "model/ops/attention.hpp"

namespace muster::cuda {

inline constexpr int largest_head = 256;

// The most segments that their starts may tell; 0: there are no starts.
inline std::int64_t segment_bound(const TensorType& starts) {
  return starts.shape.empty() ? 0 : starts.elements() - 1;
}

// Of our own gradient: delta, f32 [B, H, T_q]; behind it, where segments are told, the first key that each query
// sees and the first that it no longer sees, i32 [B, T_q, 2].
struct GradientLayout {
  std::uint64_t seen, bytes;

  GradientLayout(const AttentionShape& shape, std::int64_t queries, bool segments)
      : seen(static_cast<std::uint64_t>(shape.batch * shape.heads * queries) * sizeof(float)), bytes(seen) {
    if (segments) bytes += static_cast<std::uint64_t>(shape.batch * queries) * 2 * sizeof(std::int32_t);
  }
};

// Behind a cache a block meets this many keys of a single query.
inline constexpr int cached_split_keys = 128;

constexpr std::int64_t cached_splits(std::int64_t room) {
  return (room + cached_split_keys - 1) / cached_split_keys;
}

}  // namespace muster::cuda
