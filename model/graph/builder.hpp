// Builds a graph by calls that read like the formulas of a paper; model/layers and model/families use nothing
// else.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/config.hpp"
#include "model/graph/graph.hpp"

namespace muster {

class Builder {
 public:
  // Of a graph that computes with the parameters of a model, and has no others. `training`: it will be differentiated
  // (dropout acts, the loss op computes gradients on the fly).
  Builder(std::shared_ptr<const ParameterSpace> space, Precision precision, bool training)
      : Builder(std::move(space), nullptr, precision, training) {}
  // The same for the graph that tells which parameters a model has: they are added in the order of their first use.
  static Builder declaring(const std::shared_ptr<ParameterSpace>& space, Precision precision, bool training) {
    return {space, space.get(), precision, training};
  }

  bool training() const { return training_; }
  // Type of activations and of the compute copies of matrices: f32 or bf16.
  DType compute_type() const { return precision_ == Precision::bf16 ? DType::bf16 : DType::f32; }

  ValueId input(const std::string& name, TensorType type);
  ValueId state(const std::string& name, TensorType type);
  // A matrix is stored in the compute type, a vector (norm, bias) in f32; asking again for a name returns the
  // same value (tied weights). Rows beyond `logical_rows` (0: all are in use) are padding that stays zero.
  ValueId parameter(const std::string& name, const Shape& shape, Init init, std::int64_t logical_rows = 0);

  // Appends a node. `name` scopes its random numbers and names its outputs: "NAME" or "NAME.0", "NAME.1" ...
  std::vector<ValueId> apply(OpPtr op, std::vector<ValueId> inputs, std::string_view name);
  ValueId apply_one(OpPtr op, std::vector<ValueId> inputs, std::string_view name);
  // The value is read by this name after the plan ran.
  void mark_result(ValueId value, std::string name);
  // The value lies on the border of a block: see Recompute::block.
  void mark_border(ValueId value);

  const TensorType& type(ValueId id) const { return graph_.type(id); }
  std::string scoped(std::string_view name) const;
  Graph finish() && { return std::move(graph_); }

  // Names inside the block get this prefix while the Scope lives; a region is a unit of recompute (one
  // layer).
  class Scope {
   public:
    Scope(Builder& builder, std::string_view name, std::int32_t region = -1);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Builder& builder_;
    std::size_t length_;
    std::int32_t region_;
  };

 private:
  Builder(std::shared_ptr<const ParameterSpace> space, ParameterSpace* declared, Precision precision,
          bool training)
      : declared_(declared), precision_(precision), training_(training) {
    graph_.parameters.resize(space->size());
    graph_.space = std::move(space);
  }
  ValueId append(std::string name, TensorType type, Role role);

  ParameterSpace* declared_;  // that of the graph, where it may grow
  Precision precision_;
  bool training_;
  Graph graph_;
  std::string scope_;
  std::int32_t region_ = -1;
  std::map<std::uint32_t, std::string> random_keys_;  // a collision of hashes is refused
};

}  // namespace muster
