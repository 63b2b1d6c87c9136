// The layout: one thread a segment; some 40 bytes written for each. Clearing: a warp a row, which reads some ten starts
// and mostly writes nothing.
#include <algorithm>

#include "model/ops/cuda/attention_problem.cuh"
#include "model/ops/cuda/segment_layout.hpp"

namespace muster::cuda {
namespace {

constexpr int threads = 256;

__global__ void lay_out(SegmentStarts starts, std::int64_t queries, int heads, SegmentLayout::Widths widths,
                        std::int64_t count, SegmentLayout layout) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i > count) return;
  const std::int64_t here = i < starts.count ? i : starts.count, next = i < starts.count ? i + 1 : here;
  const std::int64_t query = starts.queries[here], key = starts.keys[here];
  layout.q[i] = query * widths.q;
  layout.kv[i] = key * widths.kv;
  layout.o[i] = query * widths.o;
  layout.lse[i] = query / queries * heads * queries + query % queries;
  if (i == count) return;
  const std::int64_t its_queries = starts.queries[next] - query, its_keys = starts.keys[next] - key;
  const bool paired = its_queries > 0 && its_keys > 0;
  layout.q_lengths[i] = paired ? static_cast<std::int32_t>(its_queries) : 0;
  layout.kv_lengths[i] = paired ? static_cast<std::int32_t>(its_keys) : 0;
}

__device__ bool is_paired(const SegmentStarts& starts, SideRows::Side side, std::int64_t row) {
  const bool of_queries = side == SideRows::Side::queries;
  const std::int32_t *own = of_queries ? starts.queries : starts.keys,
                     *other = of_queries ? starts.keys : starts.queries;
  const auto entries = static_cast<int>(starts.count + 1);
  const int begun = starts_until(own, entries, row);
  return begun > 0 && begun < entries && other[begun - 1] < other[begun];
}

struct Sides {
  SideRows rows[3];
};

__global__ void clear_rows(SegmentStarts starts, Sides sides) {
  const SideRows side = sides.rows[blockIdx.y];
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x) / warp_size;
  if (row >= side.rows || is_paired(starts, side.side, row)) return;
  auto* const elements = reinterpret_cast<__nv_bfloat16*>(side.data) + row * side.width + side.column;
  for (std::int64_t i = static_cast<int>(threadIdx.x) % warp_size; i < side.columns; i += warp_size)
    elements[i] = from_float<__nv_bfloat16>(0);
}

__global__ void clear_outputs(SegmentStarts starts, SideRows o, float* lse, std::int64_t queries, int heads) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x) / warp_size;
  if (row >= o.rows || is_paired(starts, o.side, row)) return;
  auto* const elements = reinterpret_cast<__nv_bfloat16*>(o.data) + row * o.width + o.column;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  for (std::int64_t i = lane; i < o.columns; i += warp_size) elements[i] = from_float<__nv_bfloat16>(0);
  for (int head = lane; head < heads; head += warp_size)
    lse[(row / queries * heads + head) * queries + row % queries] = -INFINITY;
}

unsigned blocks_of(std::int64_t rows) { return static_cast<unsigned>(divide_up(rows * warp_size, threads)); }

}  // namespace

SegmentLayout::SegmentLayout(std::byte* memory, std::int64_t count)
    : q(reinterpret_cast<std::int64_t*>(memory)),
      kv(q + count + 1),
      o(kv + count + 1),
      lse(o + count + 1),
      q_lengths(reinterpret_cast<std::int32_t*>(lse + count + 1)),
      kv_lengths(q_lengths + count),
      count_(count) {}

void SegmentLayout::fill(SegmentStarts starts, std::int64_t queries, int heads, Widths widths,
                         NativeStream stream) const {
  const auto blocks = static_cast<unsigned>((count_ + threads) / threads);
  launch(lay_out, dim3(blocks), dim3(threads), 0, stream, starts, queries, heads, widths, count_, *this);
}

void clear_unpaired(SegmentStarts starts, const std::array<SideRows, 3>& rows, NativeStream stream) {
  const std::int64_t most = std::max({rows[0].rows, rows[1].rows, rows[2].rows});
  launch(clear_rows, dim3(blocks_of(most), 3), dim3(threads), 0, stream, starts,
         Sides{{rows[0], rows[1], rows[2]}});
}

void clear_unpaired_outputs(SegmentStarts starts, const SideRows& o, float* lse, std::int64_t queries,
                            int heads, NativeStream stream) {
  launch(clear_outputs, dim3(blocks_of(o.rows)), dim3(threads), 0, stream, starts, o, lse, queries, heads);
}

}  // namespace muster::cuda
