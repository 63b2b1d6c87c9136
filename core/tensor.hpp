// Shapes, and views of tensors in somebody else's memory. Row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.hpp"

namespace muster {

using Shape = std::vector<std::int64_t>;

// Far beyond any machine, and so little that no sum over the tensors of a model can overflow.
inline constexpr std::int64_t most_elements = std::int64_t{1} << 40;
[[noreturn]] void refuse_size(const Shape& shape);

// Throws UserError for more than `most_elements`.
inline std::int64_t elements_of(const Shape& shape) {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape)
    if (__builtin_mul_overflow(product, extent, &product)) refuse_size(shape);
  if (product > most_elements) refuse_size(shape);
  return product;
}

struct TensorType {
  Shape shape;
  DType dtype = DType::f32;

  std::int64_t elements() const { return elements_of(shape); }
  std::uint64_t bytes() const { return static_cast<std::uint64_t>(elements()) * size_of(dtype); }
  // Rows and columns of the tensor as a matrix: the last extent are the columns.
  std::int64_t columns() const { return shape.empty() ? 1 : shape.back(); }
  std::int64_t rows() const { return columns() == 0 ? 0 : elements() / columns(); }
  bool operator==(const TensorType&) const = default;
};

std::string to_string(const TensorType& type);  // "bf16[4096, 768]"

// A tensor in memory that someone else owns; null data stands for an absent optional input.
struct TensorView {
  std::byte* data = nullptr;
  const TensorType* type = nullptr;

  explicit operator bool() const { return data != nullptr; }
  std::int64_t rows() const { return type->rows(); }
  std::int64_t columns() const { return type->columns(); }
  std::int64_t elements() const { return type->elements(); }
  DType dtype() const { return type->dtype; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

}  // namespace muster
