// The parameters of a model, apart from the plans that compute with them: training at several shapes, evaluation,
// prefill and decoding read one space.
//
// The flat space is where each parameter lies among all of them, in elements. Master weights, compute copies,
// gradients and optimizer state share these offsets.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace muster {

// Flat spaces align tensors, buckets and owned ranges to this many elements; sums of squares run over such
// blocks.
inline constexpr std::int64_t flat_block = 4096;

// How a parameter starts: normal(0, scale) or constant(scale).
struct Init {
  enum class Kind : std::uint8_t { normal, constant } kind = Kind::normal;
  float scale = 0.02f;
};

struct Parameter {
  std::string name;  // stable, scoped: "block.3.attention.qkv.weight"
  Shape shape;       // as it is stored
  Init init;
  bool decay = true;              // weight decay applies: matrices yes, norms and biases no
  std::int64_t logical_rows = 0;  // rows in use when rows are padded (vocabulary); the rest stays zero
  std::int64_t offset = 0;        // in the flat space, a multiple of flat_block

  std::int64_t elements() const { return elements_of(shape); }
  bool is_matrix() const { return shape.size() > 1; }
  // The shape under which it is saved: without padded rows.
  Shape logical_shape() const;
};

class ParameterSpace {
 public:
  // At the end of the flat space; its offset is set here. Returns its index. Its name is new.
  std::size_t add(Parameter parameter);

  std::optional<std::size_t> find(std::string_view name) const;
  const Parameter& operator[](std::size_t index) const { return parameters_[index]; }
  std::size_t size() const { return parameters_.size(); }
  auto begin() const { return parameters_.begin(); }
  auto end() const { return parameters_.end(); }

  std::int64_t elements() const { return elements_; }  // of the flat space, a multiple of flat_block
  std::int64_t logical_elements() const;               // without any padding

 private:
  std::vector<Parameter> parameters_;  // in the order of the flat space
  std::map<std::string, std::size_t, std::less<>> by_name_;
  std::int64_t elements_ = 0;
};

}  // namespace muster
