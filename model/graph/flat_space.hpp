// The flat space: where each parameter lies among all of them, in elements. Master weights, compute copies,
// gradients and optimizer state share these offsets.
#pragma once

#include <cstdint>
#include <vector>

#include "model/graph/graph.hpp"
#include "model/ops/flat.hpp"

namespace muster {

struct FlatSpace {
  std::vector<std::int64_t> offsets;  // by parameter, multiples of flat_block
  std::int64_t elements = 0;          // all of it, a multiple of flat_block

  explicit FlatSpace(const Graph& graph) {
    for (const Parameter& parameter : graph.parameters) {
      offsets.push_back(elements);
      elements += (graph.type(parameter.value).elements() + flat_block - 1) / flat_block * flat_block;
    }
  }
};

}  // namespace muster
