// The memory of a model in training: parameters, gradients, optimizer state, one arena; all of it the
// device's.
#pragma once

#include <cstdint>
#include <span>
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
  // By slot of the optimizer: the state of what this rank updates, packed in the order of the buckets.
  std::vector<Buffer> slots;
  std::vector<std::int64_t> slots_begin;  // of each bucket in every slot, elements
  Buffer arena;

  ModelState(const RunPlan& plan, const Config& config, Machine& machine);
  // What it takes of the device's memory.
  static MemoryByKind bytes(const RunPlan& plan, const Config& config);

  // Fresh weights: numbers depend on the seed and each parameter's name only, not on the device.
  void initialise(const RunPlan& plan, std::uint64_t seed);
  // A slot's part for a segment of what this rank updates of a bucket.
  std::span<float> state(const RunPlan& plan, std::size_t slot, std::size_t bucket, const Segment& segment);
  // Appends the filling of a range's compute copies from the masters.
  void refresh_compute(Range range);

  Bindings bindings(std::size_t gradient_buffer) const;
  Bindings inference() const;

  Machine& machine;
};

}  // namespace muster
