// Reverse-mode differentiation: appends to a graph the nodes that compute the gradient of every parameter.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "model/graph/graph.hpp"
#include "model/graph/precision.hpp"

namespace muster {

// What a gradient rule may use.
class Differentiator {
 public:
  const TensorType& type(ValueId value) const { return graph_.type(value); }

  // The gradient of a value; empty if nothing that was differentiated so far depends on it.
  ValueId gradient_of(ValueId value) const;
  // The same, and forgets it: for a rule that adds it to its own contribution.
  ValueId take_gradient_of(ValueId value);
  // Activations have gradients, inputs (tokens) have none.
  bool wants_gradient(ValueId value) const;
  // Adds `gradient` to what was contributed to this activation.
  void contribute(ValueId value, ValueId gradient);

  // Appends a backward node in the scope of the node under differentiation. Activations of the forward pass
  // among the inputs are kept or computed again, as the policy says. parameters[i], if given, says that
  // output i is the gradient of that parameter (f32, a running sum over micro-batches).
  std::vector<ValueId> apply(OpPtr op, std::vector<ValueId> inputs, std::string_view name,
                             const std::vector<ValueId>& parameters = {});
  // Makes the forward node itself write the gradient of this parameter, as one more output.
  void write_in_forward(ValueId parameter);

 private:
  friend void differentiate(Graph& graph, ValueId loss, Recompute policy);
  Differentiator(Graph& graph, Recompute policy) : graph_(graph), policy_(policy) {}
  ValueId append_value(std::string name, const TensorType& type, std::int32_t producer);
  ValueId gradient_slot(ValueId parameter);
  ValueId available(ValueId value);
  bool kept(ValueId value) const;
  std::vector<ValueId> append_node(Node node, std::string_view name);

  Graph& graph_;
  Recompute policy_;
  std::int32_t current_ = -1;  // the forward node under differentiation
  std::map<ValueId, ValueId> gradients_;
  std::map<ValueId, ValueId> recomputed_;
};

// Appends the backward pass of `loss`, whose gradient with respect to itself is one; nodes that nothing
// depends on are left out of it.
void differentiate(Graph& graph, ValueId loss, Recompute policy);

}  // namespace muster
