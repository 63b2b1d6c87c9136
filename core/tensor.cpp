#include "core/tensor.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.hpp"

namespace muster {

void refuse_size(const Shape& shape) {
  throw UserError(
      "a tensor [{}] is beyond any machine: lower the model's width, vocabulary, context or heads, or the "
      "sequences computed at once",
      fmt::join(shape, ", "));
}

std::string to_string(const TensorType& type) {
  return fmt::format("{}[{}]", name_of(type.dtype), fmt::join(type.shape, ", "));
}

}  // namespace muster
