// A plan: a graph whose every value has its place in memory before the first kernel runs.
//
// Activations, workspaces, inputs and results share one arena; two values may overlap in it only if their
// lifetimes do not. The plan is for one micro-batch and never sees the number of ranks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/graph/graph.hpp"
#include "model/ops/kernel.hpp"

namespace muster {

// Where a value lies: `offset` bytes into its space.
struct Place {
  enum class Space : std::uint8_t { nowhere, arena, master, compute, gradient, state } space = Space::nowhere;
  std::uint64_t offset = 0;
};

struct PlanStep {
  std::int32_t node = -1;
  KernelRun run = nullptr;
  std::uint64_t workspace_offset = 0;  // in the arena
  std::uint64_t workspace_bytes = 0;
  std::vector<std::int32_t> final_gradients;  // parameters whose gradient is final after this step
};

struct Plan {
  Graph graph;
  std::vector<Place> places;  // by value
  std::vector<PlanStep> steps;
  std::uint64_t arena_bytes = 0;
  std::uint64_t scalars_offset = 0;      // in the arena: StepScalars
  std::uint64_t largest_live_bytes = 0;  // the least that any placement needs
  std::uint64_t state_bytes = 0;
  double matrix_flops = 0;  // forward and backward, without what is computed again
  int threads = 1;          // so many run it: fewer work on larger tiles, in larger workspaces

  const Node& node(const PlanStep& step) const { return graph.nodes[static_cast<std::size_t>(step.node)]; }
  ValueId find(std::string_view name) const;  // an input, a result or a state; throws Defect
};

// Lowers a graph for a backend. `threads` may enlarge workspaces, never change results.
Plan make_plan(Graph graph, const KernelTable& kernels, int threads);

}  // namespace muster
