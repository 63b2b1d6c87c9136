#include "trainer/checkpoint/trained_model.hpp"

#include "core/error.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/model_tensors.hpp"
#include "trainer/checkpoint/run_state.hpp"
#include "trainer/config/read.hpp"
#include "trainer/run_folder.hpp"

namespace muster {

MemoryByKind TrainedModel::memory(const Config& config, const ParameterSpace& parameters,
                                  std::uint64_t arena_bytes) {
  const auto elements = static_cast<std::uint64_t>(parameters.elements());
  MemoryByKind memory{};
  memory[static_cast<std::size_t>(MemoryKind::parameters)] = Buffer::counted(elements * 4);
  if (config.run.precision == Precision::bf16)
    memory[static_cast<std::size_t>(MemoryKind::compute_weights)] = Buffer::counted(elements * 2);
  memory[static_cast<std::size_t>(MemoryKind::activations)] = Buffer::counted(arena_bytes);
  return memory;
}

TrainedModel::TrainedModel(const Config& config, std::optional<std::int64_t> step,
                           const ParameterSpace& parameters, std::uint64_t arena_bytes, Machine& machine) {
  const std::string folder = RunFolder(config.run.dir).checkpoints();
  if (!step) throw UserError("{} holds no complete checkpoint: train the run first", folder);
  const Checkpoint checkpoint = Checkpoint::open(checkpoint_path(folder, *step));
  path_ = checkpoint.path();
  const RunState state = run_state_from(checkpoint.state(), path_);
  refuse_another_model(parse_config(state.config, path_), config, path_);
  tokenizer_ = state.tokenizer;

  const auto elements = static_cast<std::uint64_t>(parameters.elements());
  master_ = machine.take(MemoryKind::parameters, elements * 4);
  Transfer transfer(machine);
  load_parameters(checkpoint, parameters, master_.as<float>(), transfer);
  if (config.run.precision == Precision::bf16) {
    compute_ = machine.take(MemoryKind::compute_weights, elements * 2);
    machine.stream().enqueue([&machine, this](NativeStream native) {
      machine.flat().to_bf16(native, master_.as<float>(), compute_.as<bf16>());
    });
    machine.stream().synchronize();
  }
  arena_ = machine.take(MemoryKind::activations, arena_bytes);
}

}  // namespace muster
