// Places blocks one after another, each at the lowest offset where it fits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "model/graph/arena.hpp"

namespace muster::reference {

inline std::vector<std::uint64_t> first_fit(std::span<const Block> blocks) {
  std::vector<std::uint64_t> offsets;
  for (const Block& block : blocks) {
    std::vector<std::size_t> alive;  // of those placed
    for (std::size_t i = 0; i < offsets.size(); ++i)
      if (blocks[i].first <= block.last && block.first <= blocks[i].last) alive.push_back(i);
    std::sort(alive.begin(), alive.end(), [&](auto a, auto b) { return offsets[a] < offsets[b]; });
    std::uint64_t at = 0;
    for (const std::size_t i : alive) {
      if (offsets[i] >= at + block.bytes) break;
      at = std::max(at, offsets[i] + blocks[i].bytes);
    }
    offsets.push_back(at);
  }
  return offsets;
}

}  // namespace muster::reference
