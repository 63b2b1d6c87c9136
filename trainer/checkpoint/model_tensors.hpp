// The tensors of a model in training as a checkpoint holds them: by name, and as far as a rank has them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/memory.hpp"
#include "trainer/checkpoint/load.hpp"
#include "trainer/checkpoint/rank_file.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/transfer.hpp"

namespace muster {

// Of the parameters and the optimizer's state, as a checkpoint of all ranks holds them.
std::uint64_t checkpoint_bytes(const RunPlan& plan);

// The pieces that this rank saves: master/NAME, and SLOT/NAME of each slot of the optimizer, of the elements it owns. They lie in
// `copy`, host memory of snapshot_bytes (run_plan.hpp), or on CPUs where they always lie. Blocks.
std::vector<Slice> slices(const RunPlan& plan, ModelState& state, const Buffer& copy);

// Parameters whole, the optimizer's state as far as this rank updates them.
void load(const Checkpoint& checkpoint, const RunPlan& plan, ModelState& state);
void load_parameters(const Checkpoint& checkpoint, const ParameterSpace& parameters, std::span<float> master,
                     Transfer& transfer);

}  // namespace muster
