#include "model/executor.hpp"

#include <utility>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace muster {
namespace {

TensorView view_of(const Plan& plan, const Bindings& bindings, ValueId id) {
  if (!id) return {};
  const Place& place = plan.places[static_cast<std::size_t>(id.index)];
  std::byte* base = nullptr;
  switch (place.space) {
    case Place::Space::arena:
      base = bindings.arena;
      break;
    case Place::Space::master:
      base = bindings.master;
      break;
    case Place::Space::compute:
      base = bindings.compute;
      break;
    case Place::Space::gradient:
      base = bindings.gradient;
      break;
    case Place::Space::state:
      base = bindings.state;
      break;
    case Place::Space::nowhere:
      break;
  }
  check(base != nullptr, "every space that a plan uses is bound");
  return {base + place.offset, &plan.graph.type(id)};
}

void run_step(const Plan& plan, const PlanStep& step, const Bindings& bindings, const StepScalars& scalars) {
  check(thread_count() <= plan.threads, "no more threads run a plan than it was made for");
  const Node& node = plan.graph.nodes[static_cast<std::size_t>(step.node)];
  std::vector<TensorView> inputs, outputs;
  for (const ValueId id : node.inputs) inputs.push_back(view_of(plan, bindings, id));
  for (const ValueId id : node.outputs) outputs.push_back(view_of(plan, bindings, id));
  KernelArgs args;
  args.inputs = inputs;
  args.outputs = outputs;
  args.workspace = step.workspace_bytes > 0 ? bindings.arena + step.workspace_offset : nullptr;
  args.scalars = &scalars;
  args.random_key = node.random_key;
  args.accumulate = node.accumulate || scalars.first_micro_batch == 0;
  step.run(*node.op, args);
}

}  // namespace

Executor::Executor(const Plan& plan) : plan_(plan) {}

TensorView Executor::view(std::string_view name, const Bindings& bindings) const {
  return view_of(plan_, bindings, plan_.find(name));
}

void Executor::run(Stream& stream, const Bindings& bindings, const StepScalars& scalars,
                   const GradientsFinal& gradients_final) const {
  for (const PlanStep& step : plan_.steps) {
    stream.enqueue([&plan = plan_, &step, bindings, scalars] { run_step(plan, step, bindings, scalars); });
    if (gradients_final && !step.final_gradients.empty()) gradients_final(step.final_gradients);
  }
}

}  // namespace muster
