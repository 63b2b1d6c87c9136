// Documents as a ragged batch: where each begins in each tensor, in elements, and how long it is.
#pragma once

#include <cstdint>

#include "core/stream.hpp"
#include "model/ops/attention.hpp"

namespace muster::cuda {

// Arrays in device memory, filled from `document_starts`. Behind the last document come empty ones up to `count`.
class DocumentLayout {
 public:
  static std::uint64_t bytes(std::int64_t count) {
    return (static_cast<std::uint64_t>(count + 1) * 4 * 8 + static_cast<std::uint64_t>(count) * 4 + 255) /
           256 * 256;
  }
  // Lays the arrays into `memory`, aligned to 16 bytes.
  DocumentLayout(std::byte* memory, std::int64_t count);

  struct Widths {
    std::int64_t q, kv, o;  // columns of the rows
  };
  // `starts`: i32 [documents + 1], documents <= count; `length` tokens in a sample; lse is [B, heads, length].
  void fill(const std::int32_t* starts, std::int64_t documents, std::int64_t length, int heads, Widths widths,
            NativeStream stream) const;

  std::int64_t* q;        // [count + 1]
  std::int64_t* kv;       // [count + 1]
  std::int64_t* o;        // [count + 1]
  std::int64_t* lse;      // [count + 1], of the first head
  std::int32_t* lengths;  // [count]

 private:
  std::int64_t count_;
};

}  // namespace muster::cuda
