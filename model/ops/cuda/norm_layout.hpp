// How the gradient of a norm is cut, from shapes alone.
#pragma once

#include <algorithm>
#include <cstdint>

namespace muster::cuda {

// A thread keeps `groups` groups of `width` neighbouring elements of each row of its block in registers; group g of
// thread t begins at column (g threads + t) width.
struct NormCut {
  int width, groups, threads;

  // Up to 8,192 columns stay in registers, and of 16,384 the gradient's sums over rows. 16 groups hold any row that
  // models have; odd widths take them too, being none of a model's.
  static constexpr NormCut of(std::int64_t columns, bool vectors) {
    const int width = vectors ? 4 : 1;
    const std::int64_t items = (columns + width - 1) / width;
    const int groups = !vectors || items > 4096 ? 16
                       : items > 2048           ? 8
                       : items <= 256           ? 1
                       : items <= 512           ? 2
                                                : 4;
    return {width, groups, static_cast<int>(((items + groups - 1) / groups + 31) / 32 * 32)};
  }
};

// Rows that a block of norm_gradient takes: so many blocks that they fill a GPU (65,536 threads), but no fewer than 8
// rows, so that the partial sums of dweight and dbias cost little beside the rows.
constexpr std::int64_t norm_gradient_rows(std::int64_t rows, std::int64_t columns) {
  const std::int64_t blocks =
      std::max<std::int64_t>(1, 65536 / NormCut::of(columns, columns % 4 == 0).threads);
  return std::max<std::int64_t>(8, (rows + blocks - 1) / blocks);
}
constexpr std::int64_t norm_gradient_blocks(std::int64_t rows, std::int64_t columns) {
  const std::int64_t of_block = norm_gradient_rows(rows, columns);
  return (rows + of_block - 1) / of_block;
}

}  // namespace muster::cuda
