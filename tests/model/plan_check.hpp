// Whether a plan keeps its promise, found the slow way: every pair of values that are in memory at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "model/graph/plan.hpp"

namespace muster::plan_check {

struct Occupied {
  std::int32_t value = -1;  // -1: a workspace
  std::int32_t first = 0, last = 0;
  std::uint64_t begin = 0, end = 0;  // bytes of the arena
};

// Everything that lies in the arena, from the step that writes it to the last that reads it. Inputs are
// written before the first step, results are read after the last.
inline std::vector<Occupied> occupied(const Plan& plan) {
  const Graph& graph = plan.graph;
  const auto steps = static_cast<std::int32_t>(plan.steps.size());
  std::vector<Occupied> all;
  std::vector<std::size_t> place(graph.values.size());
  for (std::size_t v = 0; v < graph.values.size(); ++v) {
    place[v] = all.size();
    const Value& value = graph.values[v];
    if (plan.places[v].space != Place::Space::arena) continue;
    const std::uint64_t begin = plan.places[v].offset;
    all.push_back({static_cast<std::int32_t>(v), steps, -1, begin, begin + value.type.bytes()});
    if (value.role == Role::input) all.back().first = all.back().last = 0;
    if (value.role == Role::result) all.back().last = steps - 1;
  }
  for (std::int32_t step = 0; step < steps; ++step) {
    const Node& node = plan.node(plan.steps[static_cast<std::size_t>(step)]);
    for (const std::vector<ValueId>* ids : {&node.inputs, &node.outputs})
      for (const ValueId id : *ids) {
        if (!id) continue;
        const auto v = static_cast<std::size_t>(id.index);
        if (plan.places[v].space != Place::Space::arena) continue;
        all[place[v]].first = std::min(all[place[v]].first, step);
        all[place[v]].last = std::max(all[place[v]].last, step);
      }
  }
  for (std::int32_t step = 0; step < steps; ++step) {
    const PlanStep& planned = plan.steps[static_cast<std::size_t>(step)];
    if (planned.workspace_bytes > 0)
      all.push_back(
          {-1, step, step, planned.workspace_offset, planned.workspace_offset + planned.workspace_bytes});
  }
  return all;
}

// The step after the earlier one's last read writes the later one over it, as its op allows.
inline bool overwrites(const Plan& plan, const Occupied& earlier, const Occupied& later) {
  if (earlier.value < 0 || later.value < 0 || earlier.last != later.first) return false;
  const Node& node = plan.node(plan.steps[static_cast<std::size_t>(later.first)]);
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    const int i = node.op->may_overwrite(static_cast<int>(o));
    if (node.outputs[o].index == later.value && i >= 0 &&
        node.inputs[static_cast<std::size_t>(i)].index == earlier.value)
      return earlier.begin == later.begin;
  }
  return false;
}

// Pairs that are in memory at once and in each other's way, one line each; and what lies outside the arena.
inline std::vector<std::string> faults(const Plan& plan) {
  const std::vector<Occupied> all = occupied(plan);
  const auto name = [&](const Occupied& o) {
    return o.value < 0 ? "the workspace of step " + std::to_string(o.first)
                       : plan.graph.values[static_cast<std::size_t>(o.value)].name;
  };
  std::vector<std::string> found;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Occupied& a = all[i];
    if (a.end > plan.arena_bytes) found.push_back(name(a) + " ends outside the arena");
    for (std::size_t j = i + 1; j < all.size(); ++j) {
      const Occupied& b = all[j];
      const bool at_once = a.first <= b.last && b.first <= a.last;
      const bool overlap = a.begin < b.end && b.begin < a.end;
      if (at_once && overlap && !overwrites(plan, a, b) && !overwrites(plan, b, a))
        found.push_back(name(a) + " and " + name(b));
    }
  }
  return found;
}

}  // namespace muster::plan_check
