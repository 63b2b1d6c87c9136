// What a checkpoint of a run holds, and how it comes back: tensors by name, the position of the run, and what
// it was told.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "trainer/checkpoint/load.hpp"
#include "trainer/checkpoint/rank_file.hpp"
#include "trainer/config/config.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/position.hpp"
#include "trainer/step/transfer.hpp"

namespace muster {

// What the manifest keeps beside the tensors.
struct RunState {
  Position position;
  std::string config;       // the resolved configuration, TOML
  std::string tokenizer;    // its description, whole
  std::string fingerprint;  // what the bits depend on beside the configuration
  std::vector<SourceIdentity> sources;
};
std::string to_json(const RunState& state, const Config& config);
// Throws UserError naming `path` when the text is not what to_json writes.
RunState run_state_from(const std::string& json, const std::string& path);

// The pieces that this rank saves: master/NAME, adam.m/NAME, adam.v/NAME of the elements it owns. They lie in
// `copy`, host memory of snapshot_bytes (run_plan.hpp), or on CPUs where they always lie. Blocks.
std::vector<Slice> slices(const RunPlan& plan, ModelState& state, const Buffer& copy);

// Parameters whole, moments as far as this rank updates them.
void load(const Checkpoint& checkpoint, const RunPlan& plan, ModelState& state);
void load_parameters(const Checkpoint& checkpoint, const ParameterSpace& parameters, std::span<float> master,
                     Transfer& transfer);

// Throws Defect naming the ranks unless the parameters are the same bits on all of them.
void check_replicas(ModelState& state, Communicator& comm);

}  // namespace muster
