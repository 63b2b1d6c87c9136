// Workspace of the embedding's gradient: ids in order of (id, position).
#pragma once

#include <cstdint>

namespace muster::cuda {

// Id and position in one key, so that no two are equal. Runs of sorted keys are merged in pairs, back and forth
// between two halves of the workspace.
using EmbeddingKey = std::uint64_t;
inline constexpr std::uint64_t embedding_sort_bytes(std::int64_t positions) {
  return 2 * static_cast<std::uint64_t>(positions) * sizeof(EmbeddingKey);
}

}  // namespace muster::cuda
