#include "model/graph/differentiate.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "model/ops/addition.hpp"

namespace muster {

ValueId Differentiator::gradient_of(ValueId value) const {
  const auto found = gradients_.find(value);
  return found == gradients_.end() ? ValueId() : found->second;
}

ValueId Differentiator::take_gradient_of(ValueId value) {
  const ValueId gradient = gradient_of(value);
  gradients_.erase(value);
  return gradient;
}

bool Differentiator::wants_gradient(ValueId value) const { return graph_[value].role == Role::activation; }

void Differentiator::contribute(ValueId value, ValueId gradient) {
  if (!wants_gradient(value)) return;
  const auto [place, first] = gradients_.try_emplace(value, gradient);
  if (!first) place->second = apply(std::make_shared<Addition>(), {place->second, gradient}, "sum")[0];
}

std::vector<ValueId> Differentiator::apply(OpPtr op, std::vector<ValueId> inputs, std::string_view name,
                                           const std::vector<ValueId>& parameters) {
  for (ValueId& input : inputs)
    if (input) input = available(input);
  const Node& forward = graph_.nodes[static_cast<std::size_t>(current_)];
  Node node{std::move(op),  std::move(inputs), {},   forward.scope, forward.random_key,
            forward.region, Phase::backward,   false};
  for (const ValueId parameter : parameters) {
    if (!parameter) {
      node.outputs.push_back({});
      continue;
    }
    node.accumulate =
        static_cast<bool>(graph_.parameters[static_cast<std::size_t>(graph_[parameter].parameter)].gradient);
    node.outputs.push_back(gradient_slot(parameter));
  }
  return append_node(std::move(node), name);
}

void Differentiator::write_in_forward(ValueId parameter) {
  check(!graph_.parameters[static_cast<std::size_t>(graph_[parameter].parameter)].gradient,
        "a gradient written in the forward pass comes first");
  const ValueId slot = gradient_slot(parameter);
  graph_.nodes[static_cast<std::size_t>(current_)].outputs.push_back(slot);
}

ValueId Differentiator::append_value(std::string name, const TensorType& type, std::int32_t producer) {
  graph_.values.push_back({std::move(name), type, Role::activation, producer, -1, false});
  return {static_cast<std::int32_t>(graph_.values.size()) - 1};
}

ValueId Differentiator::gradient_slot(ValueId parameter) {
  const std::int32_t index = graph_[parameter].parameter;
  ParameterUse& entry = graph_.parameters[static_cast<std::size_t>(index)];
  if (!entry.gradient) {
    const ValueId slot =
        append_value("gradient." + graph_[parameter].name, {graph_.type(parameter).shape, DType::f32}, -1);
    graph_[slot].role = Role::gradient;
    graph_[slot].parameter = index;
    entry.gradient = slot;
  }
  return entry.gradient;
}

// Fills in the outputs that are not given yet.
std::vector<ValueId> Differentiator::append_node(Node node, std::string_view name) {
  const std::vector<TensorType> types = node.op->infer(graph_.types(node.inputs));
  node.outputs.resize(types.size());
  const auto index = static_cast<std::int32_t>(graph_.nodes.size());
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (node.outputs[i]) {
      check(graph_.type(node.outputs[i]).elements() == types[i].elements(),
            "a gradient has its parameter's size");
      continue;
    }
    node.outputs[i] =
        append_value(node.scope + "." + std::string(name) + "." + std::to_string(i), types[i], index);
  }
  graph_.nodes.push_back(std::move(node));
  return graph_.nodes.back().outputs;
}

bool Differentiator::kept(ValueId value) const {
  const Value& v = graph_[value];
  if (v.role != Role::activation || v.producer < 0) return true;
  const Node& producer = graph_.nodes[static_cast<std::size_t>(v.producer)];
  if (producer.phase != Phase::forward) return true;
  switch (policy_) {
    case Recompute::none:
      return true;
    case Recompute::block:
      return producer.region < 0 || v.border;
    case Recompute::norms: {
      const auto output = std::find(producer.outputs.begin(), producer.outputs.end(), value);
      return !producer.op->recipe(producer, static_cast<int>(output - producer.outputs.begin()));
    }
  }
  return true;
}

// The value itself if it is kept, else a copy that is computed again right here, before its first use.
ValueId Differentiator::available(ValueId value) {
  if (kept(value)) return value;
  if (const auto found = recomputed_.find(value); found != recomputed_.end()) return found->second;
  const Node producer = graph_.nodes[static_cast<std::size_t>(graph_[value].producer)];
  const auto output =
      std::find(producer.outputs.begin(), producer.outputs.end(), value) - producer.outputs.begin();

  const std::optional<Recipe> recipe = producer.op->recipe(producer, static_cast<int>(output));
  const bool short_way =
      recipe && std::all_of(recipe->inputs.begin(), recipe->inputs.end(), [&](ValueId input) {
        const bool sibling =
            std::find(producer.outputs.begin(), producer.outputs.end(), input) != producer.outputs.end();
        return !sibling || kept(input);
      });
  Node node = producer;
  node.phase = Phase::recompute;
  node.outputs.clear();
  if (short_way) {
    node.op = recipe->op;
    node.inputs = recipe->inputs;
  }
  for (ValueId& input : node.inputs)
    if (input) input = available(input);
  const std::string name = "again." + std::string(producer.op->name());
  const std::vector<ValueId> outputs = append_node(std::move(node), name);
  if (short_way) {
    recomputed_[value] = outputs[0];
  } else {
    for (std::size_t i = 0; i < outputs.size(); ++i) recomputed_[producer.outputs[i]] = outputs[i];
  }
  return recomputed_.at(value);
}

void differentiate(Graph& graph, ValueId loss, Recompute policy) {
  Differentiator differentiator(graph, policy);
  const std::int32_t last = graph[loss].producer;
  check(last >= 0, "the loss is computed by a node");
  for (std::int32_t index = last; index >= 0; --index) {
    const Node node = graph.nodes[static_cast<std::size_t>(index)];
    const bool reached =
        index == last || std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId output) {
          return static_cast<bool>(differentiator.gradient_of(output));
        });
    if (!reached) continue;
    differentiator.current_ = index;
    node.op->differentiate(differentiator, node);
  }
  for (const ParameterUse& parameter : graph.parameters)
    check(!parameter.value || parameter.gradient, "every parameter of the graph takes part in the loss");
}

}  // namespace muster
