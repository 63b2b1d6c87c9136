// Attention forward, from scratch and behind a cache: a block of queries meets the keys it may see in blocks,
// with a running maximum and sum of each row (Milakov, Gimelshein 2018, "Online normalizer calculation for
// softmax").
//
// A row's result depends on neither the task nor the thread that computes it.
#pragma once

#include <cmath>

#include "core/parallel.hpp"
#include "model/ops/cpu/attention_setup.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA::attention_forward {

// Keys of a block: scores of a block of queries stay in the first or second cache.
inline constexpr std::int64_t block_keys = 256;
inline constexpr std::int64_t score_row = row_stride(block_keys);

// Rows of one sample's head; o lies in rows of its own, without gaps.
template <class T>
struct Sources {
  const T *q, *k, *v;
  std::int64_t q_sample, q_row, kv_sample, kv_row;  // elements from sample to sample, from row to row
};

struct Lengths {
  std::int64_t queries, keys;
};

template <class Unit>
struct Workspace {
  Unit *keys, *values, *queries;
  float *scores, *sums;
  std::uint32_t* words;
  std::uint64_t bytes;

  Workspace(std::byte* base, std::int64_t head_size, std::int64_t key_count) {
    Pieces pieces(base);
    const std::int64_t rows = round_up(key_count, panel);
    keys = pieces.take<Unit>(rows * transposed_depth<Unit>(head_size));
    values = pieces.take<Unit>(rows / unit_depth<Unit> * row_stride(head_size));
    queries = pieces.take<Unit>(block_rows * row_stride(head_size));
    scores = pieces.take<float>(block_rows * score_row);
    sums = pieces.take<float>(block_rows * row_stride(head_size));
    words = pieces.take<std::uint32_t>(ProbabilityDropout::words(block_keys));
    bytes = pieces.bytes();
  }
};

// The state of a block of queries between blocks of keys.
struct Running {
  alignas(64) float largest[block_rows];  // of the products of a query and the keys so far
  alignas(64) float sum[block_rows];      // of 2^(scale * (product - largest))
  alignas(64) float decay[block_rows];    // what the sums so far are to be multiplied with
};

// Turns a row of scores, not yet scaled, into probabilities times 2^-largest, in place, as units of an operand A. `range`
// is what the query sees of the block's keys, which are `columns` with the padding.
template <class Unit>
void exponentials(float* scores, std::int64_t columns, KeyRange range, float scale, float& largest_score,
                  float& sum_of_row, float& decay, const ProbabilityDropout& dropout,
                  const std::uint32_t* words) {
  const std::int64_t begin = std::min(columns, range.begin / panel * panel),
                     end = std::min(columns, round_up(range.end, panel));
  Unit* out = reinterpret_cast<Unit*>(scores);
  const auto clear = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t j = from; j < to; j += panel)
      store_along(out + j / unit_depth<Unit>, Floats{}, Floats{});
  };
  if (range.begin >= range.end) {
    clear(0, columns);
    decay = 0;
    return;
  }
  const Floats never = broadcast(-std::numeric_limits<float>::infinity());
  const auto mask_panel = [&](std::int64_t j) {
    for (std::int64_t i = j; i < j + panel; i += lanes)
      store(scores + i, select(inside(range, i), load(scores + i), never));
  };
  if (begin < range.begin) mask_panel(begin);
  if (range.end < end) mask_panel(end - panel);
  Floats top[2] = {never, never};
  for (std::int64_t j = begin; j < end; j += panel) {
    top[0] = max(load(scores + j), top[0]);
    top[1] = max(load(scores + j + lanes), top[1]);
  }
  const float before = largest_score;
  largest_score = std::max(before, largest(max(top[0], top[1])));
  float scaled = scale * largest_score;
  decay = scale * before - scaled;  // its power of two is taken for all rows at once
  if (std::abs(scaled) > large_score) {
    for (std::int64_t j = begin; j < end; j += lanes) store(scores + j, load(scores + j) - largest_score);
    decay = scale * (before - largest_score);
    scaled = 0;
  }
  Floats sums[2] = {};
  const Floats factor = broadcast(scale), offset = broadcast(-scaled);
  for (std::int64_t j = begin; j < end; j += panel) {
    Floats p0 = exp2_of_score(fma(load(scores + j), factor, offset));
    Floats p1 = exp2_of_score(fma(load(scores + j + lanes), factor, offset));
    sums[0] += p0;
    sums[1] += p1;
    if (words) {
      p0 *= dropout.factors(words + j);
      p1 *= dropout.factors(words + j + lanes);
    }
    store_along(out + j / unit_depth<Unit>, p0, p1);
  }
  sum_of_row = sum(sums[0] + sums[1]);
  clear(0, begin);
  clear(end, columns);
}

// Rows of o and of lse for the queries [first, first + count) of a head, whose keys from `packed_begin` on
// are in the workspace.
template <class T>
class QueryBlock {
  using Unit = UnitOf<T>;

 public:
  QueryBlock(const AttentionShape& shape, const Mask& mask, const ProbabilityDropout& dropout,
             const Workspace<Unit>& work)
      : shape_(shape), mask_(mask), dropout_(dropout), work_(work) {}

  void run(const T* q, std::int64_t q_row, std::int64_t sample, std::int64_t head, std::int64_t first,
           std::int64_t count, std::int64_t packed_begin, T* o, std::int64_t o_row, float* lse) {
    const std::int64_t size = shape_.head_size, stride = row_stride(size), rows = round_up(count, tile_rows);
    pack_rows(q, q_row, count, rows, size, work_.queries, stride);
    KeyRange ranges[block_rows];
    for (std::int64_t r = 0; r < count; ++r) ranges[r] = mask_.keys_of(sample, first + r);
    const std::int64_t begin = std::max(packed_begin, ranges[0].begin / panel * panel);
    const std::int64_t end = ranges[count - 1].end;
    std::fill_n(running_.largest, block_rows, -std::numeric_limits<float>::infinity());
    std::fill_n(running_.sum, block_rows, 0.0f);
    if (begin >= end) std::fill_n(work_.sums, rows * stride, 0.0f);
    for (std::int64_t key = begin; key < end; key += block_keys) {
      const std::int64_t columns = round_up(std::min(block_keys, end - key), panel);
      multiply_keys(rows, key - packed_begin, columns);
      update_rows(sample, head, first, count, rows, key, columns, ranges);
      const Left<Unit> probabilities{reinterpret_cast<const Unit*>(work_.scores), score_row, 1};
      const Right<Unit> values{work_.values + (key - packed_begin) / unit_depth<Unit> * stride, stride};
      const std::int64_t depth = columns / unit_depth<Unit>;
      if (key == begin)
        multiply<false, false>(probabilities, values, rows, size, depth, work_.sums, stride);
      else
        multiply<true, false>(probabilities, values, rows, size, depth, work_.sums, stride);
    }
    for (std::int64_t r = 0; r < count; ++r) {
      const float total = running_.sum[r];
      const Floats inverse = broadcast(total == 0 ? 0 : 1 / total);
      for (std::int64_t c = 0; c < size; c += lanes)
        store_columns(o + r * o_row + c, load(work_.sums + r * stride + c) * inverse, size - c);
      if (lse) lse[r] = log_of_sum(running_.largest[r], total);
    }
  }

 private:
  float log_of_sum(float largest_product, float total) const {
    const float in_binary = shape_.scale() * log2_e * largest_product;
    const float largest_score =
        std::abs(in_binary) > large_score ? shape_.scale() * largest_product : ln_2 * in_binary;
    return largest_score + std::log(total);
  }

  void multiply_keys(std::int64_t rows, std::int64_t packed, std::int64_t columns) {
    const std::int64_t depth = transposed_depth<Unit>(shape_.head_size);
    for (std::int64_t j = 0; j < columns; j += panel)
      multiply<false, false>(Left<Unit>{work_.queries, row_stride(shape_.head_size), 1},
                             Right<Unit>{work_.keys + (packed + j) * depth, panel}, rows, panel,
                             divide_up(shape_.head_size, unit_depth<Unit>), work_.scores + j, score_row);
  }

  void update_rows(std::int64_t sample, std::int64_t head, std::int64_t first, std::int64_t count,
                   std::int64_t rows, std::int64_t key, std::int64_t columns, const KeyRange* ranges) {
    alignas(64) float sums[block_rows] = {};
    std::fill_n(running_.decay, block_rows, 0.0f);
    for (std::int64_t r = 0; r < rows; ++r) {
      KeyRange range{};  // of the block's own columns
      if (r < count)
        range = {std::max<std::int64_t>(0, ranges[r].begin - key),
                 std::min(columns, std::max<std::int64_t>(0, ranges[r].end - key))};
      const std::uint32_t* words = nullptr;
      if (dropout_.active() && range.begin < range.end)
        words = dropout_.draw(sample, head, first + r, key, columns, work_.words);
      exponentials<Unit>(work_.scores + r * score_row, columns, range, shape_.scale() * log2_e,
                         running_.largest[r], sums[r], running_.decay[r], dropout_, words);
    }
    for (std::int64_t r = 0; r < block_rows; r += lanes) {
      const Floats decay = exp2_of_score(load(running_.decay + r));
      store(running_.decay + r, decay);
      store(running_.sum + r, fma(load(running_.sum + r), decay, load(sums + r)));
    }
    const std::int64_t stride = row_stride(shape_.head_size);
    for (std::int64_t r = 0; r < count; ++r) {
      if (running_.decay[r] == 1) continue;
      for (std::int64_t c = 0; c < shape_.head_size; c += lanes)
        store(work_.sums + r * stride + c, load(work_.sums + r * stride + c) * running_.decay[r]);
    }
  }

  const AttentionShape& shape_;
  const Mask& mask_;
  const ProbabilityDropout& dropout_;
  const Workspace<Unit>& work_;
  Running running_;
};

template <class T>
void forward(const AttentionShape& shape, const Sources<T>& from, Lengths lengths, const Mask& mask,
             const ProbabilityDropout& dropout, T* o, float* lse, std::byte* workspace,
             std::int64_t packed_capacity) {
  using Unit = UnitOf<T>;
  const std::int64_t group = shape.heads / shape.kv_heads, size = shape.head_size, o_row = shape.heads * size;
  const std::int64_t heads = shape.batch * shape.heads, part = queries_per_task(heads, lengths.queries);
  const std::int64_t parts = divide_up(lengths.queries, part);
  const std::uint64_t thread_bytes = Workspace<Unit>(nullptr, size, packed_capacity).bytes;
  parallel_tasks(heads * parts, [&](std::int64_t task, int thread) {
    const std::int64_t sample = task / parts / shape.heads, head = task / parts % shape.heads;
    const std::int64_t first = task % parts * part, last = std::min(lengths.queries, first + part);
    const Workspace<Unit> work(workspace + thread_bytes * static_cast<std::uint64_t>(thread), size,
                               packed_capacity);
    QueryBlock<T> block(shape, mask, dropout, work);
    for (std::int64_t query = first, end; query < last; query = end) {
      end = mask.end_of_span(sample, query, last);
      const std::int64_t begin = mask.keys_of(sample, query).begin / panel * panel;
      const std::int64_t keys = std::max<std::int64_t>(0, mask.keys_of(sample, end - 1).end - begin);
      const std::int64_t kv = sample * from.kv_sample + begin * from.kv_row + head / group * size;
      pack_transposed(from.k + kv, from.kv_row, keys, size, work.keys);
      pack_depth(from.v + kv, from.kv_row, keys, round_up(keys, panel), size, work.values, row_stride(size));
      for (std::int64_t at = query; at < end; at += block_rows)
        block.run(from.q + sample * from.q_sample + at * from.q_row + head * size, from.q_row, sample, head,
                  at, std::min(block_rows, end - at), begin,
                  o + (sample * lengths.queries + at) * o_row + head * size, o_row,
                  lse ? lse + (sample * shape.heads + head) * lengths.queries + at : nullptr);
    }
  });
}

inline std::uint64_t forward_bytes(DType type, std::int64_t head_size, std::int64_t keys, int threads) {
  const std::uint64_t one = type == DType::bf16 ? Workspace<UnitOf<bf16>>(nullptr, head_size, keys).bytes
                                                : Workspace<float>(nullptr, head_size, keys).bytes;
  return one * static_cast<std::uint64_t>(threads);
}

}  // namespace muster::cpu::MUSTER_ISA::attention_forward
MUSTER_END_ISA
