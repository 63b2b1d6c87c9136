// What attention's two directions share: which keys a query may see, what dropout keeps, how the work is cut
// into tasks, and how workspace is shared out.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "core/error.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/cpu/attention_tiles.hpp"
#include "model/ops/cpu/philox_vector.hpp"
#include "model/ops/kernel.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

// Hands out aligned pieces of a workspace; on null it counts the bytes.
class Pieces {
 public:
  explicit Pieces(std::byte* base = nullptr) : base_(base) {}
  template <class T>
  T* take(std::int64_t count) {
    std::byte* piece = base_ ? base_ + used_ : nullptr;
    used_ += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(piece);
  }
  // A whole number of pages, so that threads do not share them.
  std::uint64_t bytes() const { return static_cast<std::uint64_t>(round_up(used_, 4096)); }

 private:
  std::byte* base_;
  std::int64_t used_ = 0;
};

// A half-open range.
struct KeyRange {
  std::int64_t begin = 0, end = 0;
};

// The keys that the queries of a sample may see. Both ends of the range grow with the query.
class Mask {
 public:
  // `before`: keys that every query sees in front of those that causality counts, as behind a cache.
  Mask(const AttentionShape& shape, std::int64_t queries, std::int64_t keys, const TensorView& query_starts,
       const TensorView& key_starts, std::int64_t before = 0)
      : causal_(shape.causal),
        queries_(queries),
        keys_(keys),
        before_(before),
        query_starts_(starts_of(query_starts)),
        key_starts_(starts_of(key_starts)) {}

  KeyRange keys_of(std::int64_t sample, std::int64_t query) const {
    KeyRange range{0, keys_};
    std::int64_t first_query = 0;
    if (!query_starts_.empty()) {
      const std::size_t begun = starts_until(sample, query);
      const auto key_start = [&](std::size_t segment) {
        return std::clamp<std::int64_t>(key_starts_[segment] - sample * keys_, 0, keys_);
      };
      if (begun == 0) return {key_start(0), key_start(0)};  // in no segment
      range.begin = range.end = key_start(begun - 1);
      if (begun < key_starts_.size()) range.end = key_start(begun);
      first_query = std::max<std::int64_t>(0, query_starts_[begun - 1] - sample * queries_);
    }
    if (causal_) range.end = std::min(range.end, range.begin + query - first_query + 1 + before_);
    return range;
  }

  // The queries [query, end) whose keys are met together, up to the last: those of a segment, as its neighbours may
  // have many keys more. Where both sides are one, neighbours are as small as what they add.
  std::int64_t end_of_span(std::int64_t sample, std::int64_t query, std::int64_t last) const {
    if (query_starts_.data() == key_starts_.data()) return last;
    const std::size_t begun = starts_until(sample, query);
    return begun == query_starts_.size() ? last : std::min(last, query_starts_[begun] - sample * queries_);
  }

 private:
  static std::span<const std::int32_t> starts_of(const TensorView& starts) {
    if (!starts) return {};
    return {starts.as<const std::int32_t>(), static_cast<std::size_t>(starts.elements())};
  }
  std::size_t starts_until(std::int64_t sample, std::int64_t query) const {
    const auto next = std::upper_bound(query_starts_.begin(), query_starts_.end(), sample * queries_ + query);
    return static_cast<std::size_t>(next - query_starts_.begin());
  }

  bool causal_;
  std::int64_t queries_, keys_, before_;
  std::span<const std::int32_t> query_starts_, key_starts_;
};

// Tasks are (sample, head, range of queries). There are enough of them for many threads, by the shape alone.
inline constexpr std::int64_t wanted_tasks = 16;

inline std::int64_t queries_per_task(std::int64_t heads, std::int64_t queries) {
  return heads >= wanted_tasks ? queries
                               : round_up(divide_up(queries, divide_up(wanted_tasks, heads)), block_rows);
}

// What dropout does to the probabilities of a row.
class ProbabilityDropout {
 public:
  ProbabilityDropout(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                     const KernelArgs& args)
      : queries_(queries), keys_(keys) {
    if (shape.dropout <= 0) return;
    check(args.scalars != nullptr, "dropout needs the step's scalars");
    factor_ = 1 / (1 - shape.dropout);
    below_ = dropped_below(shape.dropout);
    stream_ = {args.scalars->first_slot, args.scalars->step, args.random_key, args.scalars->seed};
  }
  bool active() const { return factor_ > 1; }

  // Words that draw() writes for `count` keys.
  static constexpr std::int64_t words(std::int64_t count) { return round_up(count + 3, 64) + lanes; }

  // Draws for the keys [first, first + count) of a query; returns where the word of the first key stands.
  const std::uint32_t* draw(std::int64_t sample, std::int64_t head, std::int64_t query, std::int64_t first,
                            std::int64_t count, std::uint32_t* words) const {
    const std::int64_t element = (head * queries_ + query) * keys_ + first;
    RandomStream stream = stream_;
    stream.slot += static_cast<std::uint32_t>(sample);
    for (std::int64_t i = 0; i < element % 4 + count; i += 64)
      philox_64(static_cast<std::uint32_t>((element + i) / 4), stream, words + i);
    return words + element % 4;
  }

  // 1 / (1 - p) where the word keeps an element, else 0.
  MUSTER_INLINE Floats factors(const std::uint32_t* words) const {
    Words w;
    std::memcpy(&w, words, sizeof w);
    return select(w >= below_, broadcast(factor_), Floats{});
  }

 private:
  std::int64_t queries_, keys_;
  float factor_ = 1;
  std::uint32_t below_ = 0;
  RandomStream stream_;
};

inline constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

// A score beyond it is so coarse in f32 that, scaled and rounded, it may lie above the largest of its row: rows with such
// take differences before they scale. The others have their bits from one fused operation.
inline constexpr float large_score = 1024;

// 2^x within 2 units in the last place for x that is at most about 0: what a score is to the largest of its
// row. Zero below -100, so that no denormal is ever made; NaN stays NaN. Half the work of exp.
MUSTER_INLINE Floats exp2_of_score(Floats x) {
  // Adding 1.5 * 2^23 leaves x rounded to an integer in the low bits of the sum.
  const Floats shifted = x + 12582912.0f;
  const Floats f = x - (shifted - 12582912.0f);
  // Least relative error on [-1/2, 1/2], 1.4e-7, with p(0) = 1.
  Floats p = broadcast(1.3276472e-3f);
  p = fma(p, f, broadcast(9.6755410e-3f));
  p = fma(p, f, broadcast(5.5507131e-2f));
  p = fma(p, f, broadcast(2.4022120e-1f));
  p = fma(p, f, broadcast(6.9314694e-1f));
  p = fma(p, f, broadcast(1.0f));
  const Words scaled = reinterpret_cast<Words>(p) + (reinterpret_cast<Words>(shifted) << 23);
  return select(x < -100.0f, Floats{}, reinterpret_cast<Floats>(scaled));
}

// Of a vector of keys from `first` on, those in the range.
MUSTER_INLINE Ints inside(KeyRange range, std::int64_t first) {
  const Ints key = lane_numbers() + static_cast<std::int32_t>(first);
  return (key >= static_cast<std::int32_t>(range.begin)) & (key < static_cast<std::int32_t>(range.end));
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
