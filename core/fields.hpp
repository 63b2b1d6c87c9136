// A batch is named fields: data fills them, the graphs of a family read them as inputs of the same names, and nobody
// between interprets them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"

namespace muster {

struct Field {
  std::string name;
  DType dtype = DType::i32;
  std::int64_t elements = 0;  // of one batch

  std::uint64_t bytes() const { return static_cast<std::uint64_t>(elements) * size_of(dtype); }
  bool operator==(const Field&) const = default;
};

// In a field `targets`: nothing is to be predicted here.
inline constexpr std::int32_t ignored_target = -1;

// Fields one after the other, in memory of the caller.
class Batch {
 public:
  Batch() = default;
  // Both outlive the batch; `memory` has bytes(fields), aligned as any element is.
  Batch(std::span<const Field> fields, std::span<std::byte> memory);
  static std::uint64_t bytes(std::span<const Field> fields);

  std::span<const Field> fields() const { return fields_; }
  bool has(std::string_view name) const;
  std::span<std::byte> bytes_of(std::string_view name) const;  // throws Defect if there is none of this name
  std::span<std::int32_t> i32(std::string_view name) const;    // nor of this type

  std::int64_t samples = 0;           // that there are; the others are filling
  std::int64_t valid_targets = 0;     // what counts in the loss
  std::int64_t merged_documents = 0;  // borders of documents left out since a sample had too many

 private:
  std::span<const Field> fields_;
  std::span<std::byte> memory_;
};

}  // namespace muster
