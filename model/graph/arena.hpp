// Places blocks with lifetimes into one arena, so that blocks which live at the same time never overlap.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace muster {

struct Block {
  std::uint64_t bytes = 0;
  std::int32_t first = 0;  // lives from step `first` to step `last`, both included
  std::int32_t last = 0;
};

struct ArenaLayout {
  std::vector<std::uint64_t> offsets;  // by block, multiples of arena_alignment
  std::uint64_t bytes = 0;
  std::uint64_t largest_live_bytes = 0;  // the lower bound: most bytes alive at one step
};

inline constexpr std::uint64_t arena_alignment = 4096;

// Tries several greedy orders (by size, by lifetime, by start, by end), each block at the lowest gap that
// fits, and keeps the best. The problem is NP-hard; the result is within a few percent of the bound on
// Transformer graphs.
ArenaLayout lay_out(std::span<const Block> blocks);

}  // namespace muster
