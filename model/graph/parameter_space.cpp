#include "model/graph/parameter_space.hpp"

#include <utility>

#include "core/error.hpp"

namespace muster {

Shape Parameter::logical_shape() const {
  Shape logical = shape;
  logical.front() = logical_rows;
  return logical;
}

std::size_t ParameterSpace::add(Parameter parameter) {
  const std::size_t index = parameters_.size();
  check(by_name_.try_emplace(parameter.name, index).second, "every parameter has a name of its own");
  parameter.offset = elements_;
  elements_ += (parameter.elements() + flat_block - 1) / flat_block * flat_block;
  parameters_.push_back(std::move(parameter));
  return index;
}

std::optional<std::size_t> ParameterSpace::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? std::nullopt : std::optional(found->second);
}

std::int64_t ParameterSpace::logical_elements() const {
  std::int64_t sum = 0;
  for (const Parameter& parameter : parameters_) sum += elements_of(parameter.logical_shape());
  return sum;
}

}  // namespace muster
