// The graph: values, and the nodes that compute them, in an order that can be run as it stands.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "model/graph/parameter_space.hpp"
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

struct Value {
  std::string name;  // stable, scoped: "block.3.attention.qkv.weight"
  TensorType type;
  Role role = Role::activation;
  std::int32_t producer = -1;   // index of the node, -1: none
  std::int32_t parameter = -1;  // parameters and their gradients: index into the model's ParameterSpace
  bool border = false;          // lies on the border of a block: kept when train.recompute = "block"
};

// A parameter of the model in this graph.
struct ParameterUse {
  ValueId value;     // empty if the graph does not read it
  ValueId gradient;  // empty in a graph without backward
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
  std::shared_ptr<const ParameterSpace> space;  // of the model, shared by all its graphs
  std::vector<ParameterUse> parameters;         // by index in the space

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
