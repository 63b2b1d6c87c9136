#include "trainer/step/model_state.hpp"

#include <algorithm>

#include "core/hash.hpp"
#include "model/ops/flat.hpp"
#include "trainer/step/transfer.hpp"

namespace muster {
ModelState::ModelState(const RunPlan& plan, const Config& config, Machine& on) : machine(on) {
  const auto elements = static_cast<std::uint64_t>(plan.parameters().elements());
  master = machine.take(MemoryKind::parameters, elements * 4);
  if (config.run.precision == Precision::bf16)
    compute = machine.take(MemoryKind::compute_weights, elements * 2);
  for (int i = 0; i < plan.gradient_buffers; ++i)
    gradients.push_back(machine.take(MemoryKind::gradients, elements * 4));
  std::int64_t updated = 0;
  for (const Range& range : plan.updated) {
    moments_begin.push_back(updated);
    updated += range.size();
  }
  m = machine.take(MemoryKind::optimizer, static_cast<std::uint64_t>(updated) * 4);
  v = machine.take(MemoryKind::optimizer, static_cast<std::uint64_t>(updated) * 4);
  arena =
      machine.take(MemoryKind::activations, std::max(plan.training.arena_bytes, plan.evaluation.arena_bytes));
}

void ModelState::initialise(const RunPlan& plan, std::uint64_t seed) {
  const std::span<float> all = master.as<float>();
  Transfer transfer(machine);
  for (const Segment& segment : segments(plan.parameters(), {0, plan.parameters().elements()})) {
    const Parameter& parameter = plan.parameters()[segment.parameter];
    const auto values = all.subspan(static_cast<std::size_t>(segment.flat),
                                    static_cast<std::size_t>(segment.end - segment.begin));
    transfer.upload(values, [&](std::int64_t begin, std::span<float> piece) {
      if (parameter.init.kind == Init::Kind::constant)
        std::fill(piece.begin(), piece.end(), parameter.init.scale);
      else
        fill_normal(piece, begin, parameter.init.scale, fnv1a(parameter.name), seed);
    });
  }
}

void ModelState::refresh_compute(Range range) {
  if (compute.empty()) return;
  const auto begin = static_cast<std::size_t>(range.begin), size = static_cast<std::size_t>(range.size());
  machine.stream().enqueue(
      [to_bf16 = machine.flat().to_bf16, from = master.as<float>().subspan(begin, size),
       to = compute.as<bf16>().subspan(begin, size)](NativeStream native) { to_bf16(native, from, to); });
}

Bindings ModelState::bindings(std::size_t gradient_buffer) const {
  return {arena.data(), master.data(), compute.data(), gradients[gradient_buffer].data(), nullptr};
}

Bindings ModelState::inference() const {
  return {arena.data(), master.data(), compute.data(), nullptr, nullptr};
}

}  // namespace muster
