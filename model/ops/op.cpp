#include "model/ops/op.hpp"

#include <string>

#include "core/error.hpp"
#include "model/graph/graph.hpp"

namespace muster {

Cost Op::cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const {
  Cost cost;
  for (const TensorType& type : inputs)
    if (!type.shape.empty()) cost.bytes += static_cast<double>(type.bytes());
  for (const TensorType& type : outputs) cost.bytes += static_cast<double>(type.bytes());
  return cost;
}

void Op::differentiate(Differentiator&, const Node&) const {
  throw Defect(std::string(name()) + " has no gradient rule");
}

std::optional<Recipe> Op::recipe(const Node&, int) const { return std::nullopt; }

int Op::may_overwrite(int) const { return -1; }

bool Op::accumulates(int) const { return false; }

}  // namespace muster
