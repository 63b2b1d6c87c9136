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

StepScalars* scalars_of(const Plan& plan, const Bindings& bindings) {
  return reinterpret_cast<StepScalars*>(bindings.arena + plan.scalars_offset);
}

void run_step(const Plan& plan, const PlanStep& step, const Bindings& bindings, bool accumulate,
              KernelContext* context, NativeStream native) {
  check(thread_count() == plan.threads, "as many threads run a plan as it was made for");
  const Node& node = plan.node(step);
  std::vector<TensorView> inputs, outputs;
  for (const ValueId id : node.inputs) inputs.push_back(view_of(plan, bindings, id));
  for (const ValueId id : node.outputs) outputs.push_back(view_of(plan, bindings, id));
  KernelArgs args;
  args.inputs = inputs;
  args.outputs = outputs;
  args.workspace = step.workspace_bytes > 0 ? bindings.arena + step.workspace_offset : nullptr;
  args.scalars = scalars_of(plan, bindings);
  args.random_key = node.random_key;
  args.accumulate = node.accumulate || accumulate;
  args.stream = native;
  args.context = context;
  step.run(*node.op, args);
}

}  // namespace

Executor::Executor(const Plan& plan, const Backend& backend) : plan_(plan), backend_(backend) {}

TensorView Executor::view(std::string_view name, const Bindings& bindings) const {
  return view_of(plan_, bindings, plan_.find(name));
}

void Executor::run(Stream& stream, const Bindings& bindings, const StepScalars& scalars,
                   const ExecutorOptions& options) const {
  set(stream, bindings, scalars);
  run(stream, bindings, 0, plan_.steps.size(), options);
}

void Executor::set(Stream& stream, const Bindings& bindings, const StepScalars& scalars) const {
  stream.enqueue([this, scalars, to = scalars_of(plan_, bindings)](NativeStream native) {
    backend_.flat.store_scalars(native, scalars, to);
  });
}

void Executor::run(Stream& stream, const Bindings& bindings, std::size_t begin, std::size_t end,
                   const ExecutorOptions& options) const {
  const Segment segment{begin, end, bindings, options.accumulate};
  if (options.times != nullptr)
    append_timed(stream, segment, *options.times);
  else
    append(stream, segment);
}

void Executor::append(Stream& stream, const Segment& segment) const {
  const auto kernels = [&] {
    for (std::size_t s = segment.begin; s < segment.end; ++s) {
      const auto name = stream.name_work([&] {
        const Node& node = plan_.node(plan_.steps[s]);
        return node.scope + "." + std::string(node.op->name());
      });
      stream.enqueue([this, &step = plan_.steps[s], bindings = segment.bindings,
                      accumulate = segment.accumulate](NativeStream native) {
        run_step(plan_, step, bindings, accumulate, backend_.context.get(), native);
      });
    }
  };
  const auto [recorded, first_time] = recordings_.try_emplace(segment);
  if (first_time) return kernels();
  if (!recorded->second) recorded->second = stream.capture(kernels);
  if (!recorded->second) return kernels();
  stream.replay(*recorded->second);
}

std::set<std::string> remarks(const Plan& plan, const Backend& backend) {
  std::set<std::string> lines;
  if (backend.context == nullptr) return lines;
  for (const Node& node : plan.graph.nodes) {
    if (std::string line = backend.context->remark(*node.op, plan.graph.types(node.inputs)); !line.empty())
      lines.insert(std::move(line));
  }
  return lines;
}

void Executor::append_timed(Stream& stream, const Segment& segment, std::vector<StepTimes>& times) const {
  for (std::size_t s = segment.begin; s < segment.end; ++s) {
    StepTimes& entry = times.emplace_back();
    entry.step = s;
    entry.begin = stream.timestamp();
    stream.enqueue([this, &step = plan_.steps[s], bindings = segment.bindings,
                    accumulate = segment.accumulate](NativeStream native) {
      run_step(plan_, step, bindings, accumulate, backend_.context.get(), native);
    });
    entry.end = stream.timestamp();
  }
}

}  // namespace muster
