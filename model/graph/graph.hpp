// The graph: values, and the nodes that compute them, in an order that can be run as it stands.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "model/ops/op.hpp"

namespace muster {

struct ValueId {
  std::int32_t index = -1;
  explicit operator bool() const { return index >= 0; }
  auto operator<=>(const ValueId&) const = default;
};

enum class Role : std::uint8_t {
  input,       // filled before the plan runs: tokens, targets, positions
  parameter,   // lives in the flat parameter space
  gradient,    // of a parameter: lives in the flat gradient space, f32
  activation,  // lives in the step's arena
  state,       // outlives the plan: KV cache
  result,      // read after the plan ran: losses, logits; lives in the step's arena to its end
};

enum class Phase : std::uint8_t { forward, recompute, backward };

// How a parameter starts: normal(0, scale) or constant(scale).
struct Init {
  enum class Kind : std::uint8_t { normal, constant } kind = Kind::normal;
  float scale = 0.02f;
};

struct Value {
  std::string name;  // stable, scoped: "block.3.attention.qkv.weight"
  TensorType type;
  Role role = Role::activation;
  std::int32_t producer = -1;   // index of the node, -1: none
  std::int32_t parameter = -1;  // parameters and their gradients: index into Graph::parameters
  bool border = false;          // lies on the border of a block: kept when train.recompute = "block"
};

struct Parameter {
  ValueId value;
  ValueId gradient;  // empty in a graph without backward
  Init init;
  bool decay = true;              // weight decay applies: matrices yes, norms and biases no
  std::int64_t logical_rows = 0;  // rows in use when rows are padded (vocabulary); the rest stays zero
};

struct Node {
  OpPtr op;
  std::vector<ValueId> inputs;  // an absent optional input is an empty ValueId
  std::vector<ValueId> outputs;
  std::string scope;  // "block.3.attention"
  std::uint32_t random_key =
      0;                     // fnv1a of the scoped name of the forward node; recompute and backward share it
  std::int32_t region = -1;  // the block (layer) it belongs to; -1: outside of all
  Phase phase = Phase::forward;
  bool accumulate = false;  // adds to a parameter gradient that an earlier node of this graph wrote
};

struct Recipe {
  OpPtr op;
  std::vector<ValueId> inputs;
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<Parameter> parameters;  // in the order of the flat space

  const Value& operator[](ValueId id) const { return values[static_cast<std::size_t>(id.index)]; }
  Value& operator[](ValueId id) { return values[static_cast<std::size_t>(id.index)]; }
  const TensorType& type(ValueId id) const { return (*this)[id].type; }
  // Empty types for inputs and outputs that are not there.
  std::vector<TensorType> types(const std::vector<ValueId>& ids) const {
    std::vector<TensorType> types;
    for (const ValueId id : ids) types.push_back(id ? type(id) : TensorType{});
    return types;
  }
};

}  // namespace muster
