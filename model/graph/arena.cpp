#include "model/graph/arena.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "model/graph/first_fit.hpp"

namespace muster {
namespace {

std::uint64_t padded(std::uint64_t bytes) {
  return (bytes + arena_alignment - 1) / arena_alignment * arena_alignment;
}

std::uint64_t largest_live(std::span<const Block> blocks) {
  std::map<std::int32_t, std::int64_t> change;
  for (const Block& block : blocks) {
    change[block.first] += static_cast<std::int64_t>(padded(block.bytes));
    change[block.last + 1] -= static_cast<std::int64_t>(padded(block.bytes));
  }
  std::int64_t live = 0, most = 0;
  for (const auto& [step, delta] : change) most = std::max(most, live += delta);
  return static_cast<std::uint64_t>(most);
}

ArenaLayout place_in_order(std::span<const Block> blocks, const std::vector<std::size_t>& order) {
  ArenaLayout layout;
  layout.offsets.resize(blocks.size());
  FirstFit placed;
  for (const std::size_t index : order) {
    const Block& block = blocks[index];
    const std::uint64_t bytes = padded(block.bytes), at = placed.place({bytes, block.first, block.last});
    layout.offsets[index] = at;
    layout.bytes = std::max(layout.bytes, at + bytes);
  }
  return layout;
}

}  // namespace

ArenaLayout lay_out(std::span<const Block> blocks) {
  const std::uint64_t bound = largest_live(blocks);
  using Before = std::function<bool(const Block&, const Block&)>;
  const auto length = [](const Block& b) { return b.last - b.first; };
  const Before orders[] = {
      [](const Block& a, const Block& b) { return a.bytes > b.bytes; },
      [&](const Block& a, const Block& b) { return length(a) > length(b); },
      [&](const Block& a, const Block& b) {
        return static_cast<double>(a.bytes) * (length(a) + 1) >
               static_cast<double>(b.bytes) * (length(b) + 1);
      },
      [](const Block& a, const Block& b) { return a.first < b.first; },
      [](const Block& a, const Block& b) { return a.last > b.last; },
  };
  ArenaLayout best;
  for (const Before& before : orders) {
    std::vector<std::size_t> order(blocks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return before(blocks[a], blocks[b]); });
    ArenaLayout layout = place_in_order(blocks, order);
    if (best.offsets.empty() || layout.bytes < best.bytes) best = std::move(layout);
    if (best.bytes == bound) break;
  }
  best.largest_live_bytes = bound;
  return best;
}

}  // namespace muster
