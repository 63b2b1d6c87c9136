// Segments as a ragged batch: where each begins in each tensor, in elements, and how long it is on either side; and what
// such a batch leaves unwritten. A segment with an empty side is empty on both: a softmax over no key is no number.
#pragma once

#include <array>
#include <cstdint>

#include "core/stream.hpp"
#include "model/ops/attention.hpp"

namespace muster::cuda {

// Of a call, in device memory: i32 [count + 1] each.
struct SegmentStarts {
  const std::int32_t *queries, *keys;
  std::int64_t count;
};

// Arrays in device memory. Behind the last segment come empty ones up to `count`.
class SegmentLayout {
 public:
  static std::uint64_t bytes(std::int64_t count) {
    return (static_cast<std::uint64_t>(count + 1) * 4 * 8 + static_cast<std::uint64_t>(count) * 2 * 4 + 255) /
           256 * 256;
  }
  // Lays the arrays into `memory`, aligned to 16 bytes.
  SegmentLayout(std::byte* memory, std::int64_t count);

  struct Widths {
    std::int64_t q, kv, o;  // columns of the rows
  };
  // At most `count` segments; `queries` rows in a sample; lse is [B, heads, queries].
  void fill(SegmentStarts starts, std::int64_t queries, int heads, Widths widths, NativeStream stream) const;

  std::int64_t* q;           // [count + 1]
  std::int64_t* kv;          // [count + 1]
  std::int64_t* o;           // [count + 1]
  std::int64_t* lse;         // [count + 1], of the first head
  std::int32_t* q_lengths;   // [count]
  std::int32_t* kv_lengths;  // [count]

 private:
  std::int64_t count_;
};

// The columns [column, column + columns) of one side's rows, bf16.
struct SideRows {
  enum class Side : int { queries, keys };
  Side side = Side::queries;
  std::byte* data = nullptr;
  std::int64_t rows = 0, width = 0, column = 0, columns = 0;
};

// Sets to zero the rows that meet no row of the other side: those of no segment, and of one whose other side is empty.
void clear_unpaired(SegmentStarts starts, const std::array<SideRows, 3>& rows, NativeStream stream);

// The same for o, and -inf in lse [B, heads, queries].
void clear_unpaired_outputs(SegmentStarts starts, const SideRows& o, float* lse, std::int64_t queries,
                            int heads, NativeStream stream);

}  // namespace muster::cuda
