// Reverse-mode differentiation: appends to a graph the nodes that compute the gradient of every parameter.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "model/config.hpp"
#include "model/graph/graph.hpp"

namespace muster {

// What a gradient rule may use.
class Differentiator {
 public:
  // The gradient of an output of the node; empty if nothing depends on it.
  ValueId gradient_of(ValueId output) const;
  bool wants_gradient(ValueId input) const;  // activations and parameters do, inputs (tokens) do not
  // The gradient slot of a parameter, to be the output of a node appended by `write_parameter_gradient`.
  // Contributes `gradient` to an activation; several contributions are added.
  void contribute(ValueId input, ValueId gradient);
  // Appends a backward node in the scope of the node under differentiation. `parameters[i]`, if not empty,
  // says that output i is the gradient of that parameter (f32, accumulated over micro-batches).
  std::vector<ValueId> apply(OpPtr op, std::vector<ValueId> inputs, std::string_view name,
                             std::vector<ValueId> parameters = {});

 private:
  friend void differentiate(Graph& graph, ValueId loss, Recompute recompute);
  Differentiator(Graph& graph, Recompute recompute);
  ValueId recomputed(ValueId value);
  bool kept(ValueId value) const;

  Graph& graph_;
  Recompute policy_;
  std::size_t forward_nodes_;
  const Node* current_ = nullptr;
  std::map<ValueId, ValueId> gradients_;
  std::map<ValueId, ValueId> recomputed_;
};

// `loss` is the output of an op whose gradient with respect to itself is taken as one.
void differentiate(Graph& graph, ValueId loss, Recompute recompute);

}  // namespace muster
