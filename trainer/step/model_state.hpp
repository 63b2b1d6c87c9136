// The memory of a model in training: parameters, gradients, optimizer state, one arena; all of it the
// device's.
#pragma once

#include <cstdint>
#include <vector>

#include "core/memory.hpp"
#include "model/executor.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

struct ModelState {
  Buffer master;                  // f32, all parameters
  Buffer compute;                 // bf16 copies, empty in f32
  std::vector<Buffer> gradients;  // f32, one for each open subtree of leaves
  Buffer m, v;  // Adam's moments of what this rank updates, packed in the order of the buckets
  std::vector<std::int64_t> moments_begin;  // of each bucket in m and v, elements
  Buffer arena;

  ModelState(const RunPlan& plan, const Config& config, Machine& machine);

  // Fresh weights: numbers depend on the seed and each parameter's name only, not on the device.
  void initialise(const RunPlan& plan, std::uint64_t seed);
  // Appends the filling of a range's compute copies from the masters.
  void refresh_compute(Range range);

  Bindings bindings(std::size_t gradient_buffer) const;
  Bindings inference() const;

  Machine& machine;
};

}  // namespace muster
