#include "core/tensor.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace muster {

std::string to_string(const TensorType& type) {
  return fmt::format("{}[{}]", name_of(type.dtype), fmt::join(type.shape, ", "));
}

}  // namespace muster
