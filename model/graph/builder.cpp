#include "model/graph/builder.hpp"

#include <optional>
#include <utility>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace muster {

Builder::Scope::Scope(Builder& builder, std::string_view name, std::int32_t region)
    : builder_(builder), length_(builder.scope_.size()), region_(builder.region_) {
  if (!builder.scope_.empty()) builder.scope_ += '.';
  builder.scope_ += name;
  if (region >= 0) builder.region_ = region;
}

Builder::Scope::~Scope() {
  builder_.scope_.resize(length_);
  builder_.region_ = region_;
}

std::string Builder::scoped(std::string_view name) const {
  return scope_.empty() ? std::string(name) : scope_ + "." + std::string(name);
}

ValueId Builder::append(std::string name, TensorType type, Role role) {
  Value value;
  value.name = std::move(name);
  value.type = std::move(type);
  value.role = role;
  graph_.values.push_back(std::move(value));
  return {static_cast<std::int32_t>(graph_.values.size()) - 1};
}

ValueId Builder::input(const std::string& name, TensorType type) {
  return append(name, std::move(type), Role::input);
}

ValueId Builder::state(const std::string& name, TensorType type) {
  return append(scoped(name), std::move(type), Role::state);
}

ValueId Builder::parameter(const std::string& name, const Shape& shape, Init init,
                           std::int64_t logical_rows) {
  const std::string full = scoped(name);
  std::optional<std::size_t> index = graph_.space->find(full);
  if (!index && declared_ != nullptr) {
    index = declared_->add(
        {full, shape, init, shape.size() > 1, logical_rows > 0 ? logical_rows : shape.front(), 0});
    graph_.parameters.resize(declared_->size());
  }
  if (!index) throw Defect("the model has no parameter named " + full);
  const Parameter& parameter = (*graph_.space)[*index];
  check(parameter.shape == shape, "a parameter has one shape in all graphs of a model");
  ValueId& value = graph_.parameters[*index].value;
  if (!value) {
    value = append(full, {shape, parameter.is_matrix() ? compute_type() : DType::f32}, Role::parameter);
    graph_[value].parameter = static_cast<std::int32_t>(*index);
  }
  return value;
}

std::vector<ValueId> Builder::apply(OpPtr op, std::vector<ValueId> inputs, std::string_view name) {
  const std::string full = scoped(name);
  const std::uint32_t key = fnv1a(full);
  const auto [known, fresh] = random_keys_.try_emplace(key, full);
  check(fresh, known->second == full ? "names of nodes are unique in their scope"
                                     : "the names of two nodes share a hash: rename one");
  const std::vector<TensorType> types = op->infer(graph_.types(inputs));
  Node node{std::move(op), std::move(inputs), {}, scope_, key, region_, Phase::forward, false};
  for (std::size_t i = 0; i < types.size(); ++i) {
    const ValueId output = append(i == 0 ? full : full + "." + std::to_string(i), types[i], Role::activation);
    graph_[output].producer = static_cast<std::int32_t>(graph_.nodes.size());
    node.outputs.push_back(output);
  }
  graph_.nodes.push_back(std::move(node));
  return graph_.nodes.back().outputs;
}

ValueId Builder::apply_one(OpPtr op, std::vector<ValueId> inputs, std::string_view name) {
  return apply(std::move(op), std::move(inputs), name)[0];
}

void Builder::mark_result(ValueId value, std::string name) {
  graph_[value].role = Role::result;
  graph_[value].name = std::move(name);
}

void Builder::mark_border(ValueId value) { graph_[value].border = true; }

}  // namespace muster
