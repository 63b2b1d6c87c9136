#include "model/graph/plan.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "model/graph/arena.hpp"

namespace muster {
namespace {

constexpr std::int32_t never = -1;

bool in_arena(const Value& value) {
  return value.role == Role::activation || value.role == Role::input || value.role == Role::result;
}

// First and last step at which each value is alive.
struct Lifetimes {
  std::vector<std::int32_t> first, last;

  explicit Lifetimes(const Graph& graph)
      : first(graph.values.size(), never), last(graph.values.size(), never) {
    const auto end = static_cast<std::int32_t>(graph.nodes.size());
    for (std::size_t v = 0; v < graph.values.size(); ++v)
      if (graph.values[v].role == Role::input) first[v] = 0, last[v] = 0;
    for (std::int32_t step = 0; step < end; ++step) {
      const Node& node = graph.nodes[static_cast<std::size_t>(step)];
      for (const ValueId output : node.outputs) {
        auto& born = first[static_cast<std::size_t>(output.index)];
        if (born == never) born = step;
        last[static_cast<std::size_t>(output.index)] = step;
      }
      for (const ValueId input : node.inputs)
        if (input) last[static_cast<std::size_t>(input.index)] = step;
    }
    for (std::size_t v = 0; v < graph.values.size(); ++v)
      if (graph.values[v].role == Role::result) last[v] = end - 1;
  }
};

// Values that share one block of memory because each overwrites the one before it.
class Sharing {
 public:
  explicit Sharing(std::size_t values) : block_(values) {
    for (std::size_t v = 0; v < values; ++v) block_[v] = v;
  }
  std::size_t block(ValueId id) const { return block_[static_cast<std::size_t>(id.index)]; }
  void share(ValueId output, ValueId input) { block_[static_cast<std::size_t>(output.index)] = block(input); }

 private:
  std::vector<std::size_t> block_;
};

Sharing share_memory(const Graph& graph, const Lifetimes& lifetimes) {
  Sharing sharing(graph.values.size());
  for (std::int32_t step = 0; step < static_cast<std::int32_t>(graph.nodes.size()); ++step) {
    const Node& node = graph.nodes[static_cast<std::size_t>(step)];
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const int i = node.op->may_overwrite(static_cast<int>(o));
      if (i < 0 || !node.inputs[static_cast<std::size_t>(i)]) continue;
      const ValueId input = node.inputs[static_cast<std::size_t>(i)], output = node.outputs[o];
      const bool dies = lifetimes.last[static_cast<std::size_t>(input.index)] == step &&
                        std::count(node.inputs.begin(), node.inputs.end(), input) == 1;
      if (dies && graph[input].role == Role::activation && in_arena(graph[output]) &&
          graph.type(input).bytes() >= graph.type(output).bytes())
        sharing.share(output, input);
    }
  }
  return sharing;
}

}  // namespace

ValueId Plan::find(std::string_view name) const {
  for (std::size_t v = 0; v < graph.values.size(); ++v) {
    const Role role = graph.values[v].role;
    if ((role == Role::input || role == Role::result || role == Role::state) && graph.values[v].name == name)
      return {static_cast<std::int32_t>(v)};
  }
  throw Defect("the plan has no input, result or state named " + std::string(name));
}

Plan make_plan(Graph graph, const KernelTable& kernels, int threads) {
  Plan plan{std::move(graph), {}, {}, 0, 0, 0, 0, 0, threads};
  const Graph& g = plan.graph;
  const Lifetimes lifetimes(g);
  const Sharing sharing = share_memory(g, lifetimes);

  for (std::int32_t step = 0; step < static_cast<std::int32_t>(g.nodes.size()); ++step) {
    const Node& node = g.nodes[static_cast<std::size_t>(step)];
    const auto kernel = kernels.find(node.op->name());
    if (kernel == kernels.end())
      throw Defect("this backend has no kernel for " + std::string(node.op->name()));
    const std::vector<TensorType> inputs = g.types(node.inputs), outputs = g.types(node.outputs);
    PlanStep planned;
    planned.node = step;
    planned.run = kernel->second.run;
    if (kernel->second.workspace)
      planned.workspace_bytes = kernel->second.workspace(*node.op, inputs, outputs, threads);
    plan.steps.push_back(std::move(planned));
    if (node.phase != Phase::recompute) plan.matrix_flops += node.op->cost(inputs, outputs).matrix_flops;
  }
  for (std::size_t p = 0; p < g.parameters.size(); ++p) {
    if (const ValueId gradient = g.parameters[p].gradient)
      plan.steps[static_cast<std::size_t>(lifetimes.last[static_cast<std::size_t>(gradient.index)])]
          .final_gradients.push_back(static_cast<std::int32_t>(p));
  }

  // One block for each set of values that share memory, one for each workspace.
  std::vector<Block> blocks;
  std::vector<std::optional<std::size_t>> block_of(g.values.size());
  for (std::size_t v = 0; v < g.values.size(); ++v) {
    if (!in_arena(g.values[v]) || lifetimes.first[v] == never) continue;
    auto& block = block_of[sharing.block({static_cast<std::int32_t>(v)})];
    if (!block) {
      block = blocks.size();
      blocks.push_back({0, lifetimes.first[v], lifetimes.last[v]});
    }
    Block& merged = blocks[*block];
    merged.bytes = std::max(merged.bytes, g.values[v].type.bytes());
    merged.first = std::min(merged.first, lifetimes.first[v]);
    merged.last = std::max(merged.last, lifetimes.last[v]);
  }
  const std::size_t first_workspace = blocks.size();
  for (const PlanStep& step : plan.steps)
    if (step.workspace_bytes > 0) blocks.push_back({step.workspace_bytes, step.node, step.node});
  const ArenaLayout layout = lay_out(blocks);
  plan.scalars_offset = layout.bytes;
  plan.arena_bytes = layout.bytes + arena_alignment;
  plan.largest_live_bytes = layout.largest_live_bytes;

  const auto offset_of = [&](const Value& value) {
    return static_cast<std::uint64_t>((*g.space)[static_cast<std::size_t>(value.parameter)].offset);
  };
  plan.places.resize(g.values.size());
  for (std::size_t v = 0; v < g.values.size(); ++v) {
    const Value& value = g.values[v];
    Place& place = plan.places[v];
    if (value.role == Role::parameter) {
      const bool master = value.type.dtype == DType::f32;
      place.space = master ? Place::Space::master : Place::Space::compute;
      place.offset = offset_of(value) * size_of(value.type.dtype);
    } else if (value.role == Role::gradient) {
      place.space = Place::Space::gradient;
      place.offset = offset_of(value) * sizeof(float);
    } else if (value.role == Role::state) {
      place.space = Place::Space::state;
      place.offset = plan.state_bytes;
      plan.state_bytes += (value.type.bytes() + arena_alignment - 1) / arena_alignment * arena_alignment;
    } else if (const auto block = block_of[sharing.block({static_cast<std::int32_t>(v)})]) {
      place.space = Place::Space::arena;
      place.offset = layout.offsets[*block];
    }
  }
  std::size_t workspace = first_workspace;
  for (PlanStep& step : plan.steps)
    if (step.workspace_bytes > 0) step.workspace_offset = layout.offsets[workspace++];
  return plan;
}

}  // namespace muster
