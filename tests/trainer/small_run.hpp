// A small training run on ranks that are threads, on samples made up from their slots: what the tests of the
// training step share.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "comm/nccl.hpp"
#include "comm/staged.hpp"
#include "comm/threads/ranks.hpp"
#include "core/device.hpp"
#include "core/hash.hpp"
#include "core/parallel.hpp"
#include "core/philox.hpp"
#include "data/prefetch.hpp"
#include "tests/trainer/shaken.hpp"
#include "trainer/checkpoint/model_tensors.hpp"
#include "trainer/loop/steps_ahead.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/replicas.hpp"
#include "trainer/step/training_step.hpp"

namespace muster::small_run {

// Dropout, documents, clipping and a leaf for each of eight samples: what could depend on the ranks does.
inline Config config(Family family = Family::gpt) {
  Config config;
  config.model.family = family;
  config.model.layers = 2;
  config.model.width = 32;
  config.model.heads = 2;
  config.model.feed_forward = 64;
  config.model.vocabulary = 67;
  config.model.dropout = 0.1;
  config.data.documents = true;
  config.train.steps = 4;
  config.train.batch = 8;
  config.train.sequence = 16;
  config.train.shards = 8;
  config.train.reduction = Reduction::invariant;
  config.optimizer.lr = 1e-2;
  config.optimizer.clip = 0.5;
  resolve(config);
  return config;
}

inline std::uint32_t number(std::int64_t slot, std::int64_t t) {
  return philox({static_cast<std::uint32_t>(slot), static_cast<std::uint32_t>(t), 0, 0}, 17)[0];
}

// Two documents a sample; between none and most of its targets are ignored.
inline void fill(const Config& config, std::int64_t first_slot, std::int64_t count, Batch& batch) {
  const std::int64_t length = config.train.sequence;
  const auto vocabulary = static_cast<std::uint32_t>(config.model.vocabulary);
  const std::span<std::int32_t> tokens = batch.i32("tokens"), targets = batch.i32("targets"),
                                positions = batch.i32("positions"), starts = batch.i32("document_starts");
  std::ranges::fill(starts, static_cast<std::int32_t>(count * length));
  for (std::int64_t s = 0; s < count; ++s) {
    const std::int64_t slot = first_slot + s, border = 1 + number(slot, -1) % (length - 1);
    starts[static_cast<std::size_t>(2 * s)] = static_cast<std::int32_t>(s * length);
    starts[static_cast<std::size_t>(2 * s + 1)] = static_cast<std::int32_t>(s * length + border);
    for (std::int64_t t = 0; t < length; ++t) {
      const auto at = static_cast<std::size_t>(s * length + t);
      const bool ignored = t + 1 == border || number(slot, 100 + t) % 8 < number(slot, -2) % 8;
      tokens[at] = static_cast<std::int32_t>(number(slot, t) % vocabulary);
      targets[at] = ignored ? ignored_target : static_cast<std::int32_t>(number(slot, t + 1) % vocabulary);
      positions[at] = static_cast<std::int32_t>(t < border ? t : t - border);
    }
  }
  batch.valid_targets = std::ranges::count_if(targets, [](std::int32_t t) { return t >= 0; });
  batch.merged_documents = 0;
}

inline Prefetch prefetch(const Config& config, MemoryAccount& account) {
  return Prefetch(
      micro_batch_fields(config),
      [&config](std::int64_t slot, std::int64_t count, Batch& batch) { fill(config, slot, count, batch); },
      account, prefetch_depth, config.train.micro_batch);
}

// How a run differs from an undisturbed one on inline streams.
struct Disturbance {
  int threads = 1;
  std::uint64_t delays = 0;  // seeds random pauses of the communicator and of the compute stream
  std::chrono::milliseconds late{0};
  bool drop_waits = false;  // of the compute stream
  DeviceKind device = DeviceKind::cpu;
  // On a GPU instead of its compute stream.
  std::function<std::unique_ptr<Stream>(std::unique_ptr<Stream>)> wrap = {};
  bool may_diverge = false;
  // Called on each rank before each step.
  std::function<void(int rank, std::int64_t step, const RunPlan&, ModelState&)> before_step = {};
  // Instead of fill() above.
  std::function<void(int rank, std::int64_t first_slot, std::int64_t count, Batch&)> fill = {};
  std::function<bool(int rank, std::int64_t step)> stop = {};
};

struct Outcome {
  std::vector<StepResult> steps;
  std::map<std::string, std::string> hashes;  // of tensors by name, as a checkpoint would hold them
  Position position;
  std::vector<double> losses() const {
    std::vector<double> all;
    for (const StepResult& step : steps) all.push_back(step.loss);
    return all;
  }
  std::vector<double> norms() const {
    std::vector<double> all;
    for (const StepResult& step : steps) all.push_back(step.grad_norm);
    return all;
  }
};

// Tensors put together from the slices of all ranks.
class Tensors {
 public:
  void add(const std::vector<Slice>& slices) {
    const std::lock_guard lock(mutex_);
    for (const Slice& slice : slices) {
      std::vector<float>& values = values_[slice.name];
      values.resize(static_cast<std::size_t>(elements_of(slice.shape)));
      std::ranges::copy(slice.values, values.begin() + slice.begin);
    }
  }
  std::map<std::string, std::string> hashes() const {
    std::map<std::string, std::string> result;
    for (const auto& [name, values] : values_)
      result[name] = hex(hash_bytes(std::as_bytes(std::span(values))));
    return result;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::vector<float>> values_;
};

// As trainer/machine/rank_machine.hpp joins them: by NCCL where every rank has a GPU.
inline std::unique_ptr<Communicator> join_devices(Communicator& comm, Machine& machine,
                                                  MemoryAccount& account) {
  if (cuda_device_count() >= comm.size()) return nccl_communicator(comm, machine.device(), 60);
  return staged_communicator(comm, machine.device(), account, 4 << 20);
}

inline Outcome train(const Config& config, int ranks, const Disturbance& disturbance = {}) {
  Outcome outcome;
  Tensors tensors;
  run_ranks(
      ranks,
      [&](Communicator& direct) {
        const int rank = direct.rank();
        set_thread_count(disturbance.threads);
        MemoryAccount account;
        std::unique_ptr<Stream> stream = std::make_unique<InlineStream>();
        if (disturbance.delays > 0)
          stream = std::make_unique<shaken::DelayedStream>(
              disturbance.delays + static_cast<std::uint64_t>(rank), disturbance.threads);
        const bool cuda = disturbance.device == DeviceKind::cuda;
        std::unique_ptr<Device> device = cuda ? cuda_device(rank % cuda_device_count()) : cpu_device();
        if (cuda) stream = device->make_stream(StreamPriority::normal);
        if (disturbance.wrap) stream = disturbance.wrap(std::move(stream));
        if (disturbance.drop_waits) stream = std::make_unique<shaken::StreamWithoutWaits>(std::move(stream));
        Machine machine(std::move(device), account, std::move(stream));
        const std::unique_ptr<Communicator> of_devices =
            cuda && ranks > 1 ? join_devices(direct, machine, account) : nullptr;
        const RunPlan plan = make_run_plan(config, ranks, rank, disturbance.threads, 0, disturbance.device,
                                           of_devices && of_devices->sums());
        ModelState state(plan, config, machine);
        shaken::LateCommunicator late(direct, disturbance.late);
        Communicator& comm = disturbance.late.count() > 0 ? static_cast<Communicator&>(late) : direct;
        state.initialise(plan, static_cast<std::uint64_t>(config.run.seed));
        state.refresh_compute({0, plan.parameters().elements()});

        Prefetch prefetch(
            micro_batch_fields(config),
            [&](std::int64_t slot, std::int64_t count, Batch& batch) {
              if (disturbance.fill)
                disturbance.fill(rank, slot, count, batch);
              else
                fill(config, slot, count, batch);
            },
            account, prefetch_depth, config.train.micro_batch, machine.device().staging());
        Position position;
        TrainingStep training(config, plan, state, {comm, of_devices ? *of_devices : comm}, position);
        StepsAhead steps(training, prefetch, position, !cuda, config.train.steps);
        const auto order = [&](std::int64_t number) {
          const std::int64_t step = number - 1;
          if (disturbance.before_step && !cuda) {  // it may change what is still being gathered
            training.settle();
            machine.stream().synchronize();
          }
          if (disturbance.before_step) disturbance.before_step(rank, step, plan, state);
          return StepOrder{config.optimizer.lr,
                           [&, step] { return disturbance.stop && disturbance.stop(rank, step); }};
        };
        // Ranks that are threads share what CUDA keeps for a process: memory that one gives back waits for all streams of its
        // GPU, those of other ranks too. So nobody trains before everybody has what it needs.
        direct.barrier("ready").wait();
        for (steps.start(order); steps.pending() > 0; steps.start(order)) {
          const StepResult result = steps.finish().result;
          if (rank == 0) outcome.steps.push_back(result);
        }
        training.settle();
        machine.stream().synchronize();
        late.drain();
        if (!disturbance.may_diverge) check_replicas(state, direct);
        const Buffer copy(account, MemoryKind::checkpoint, snapshot_bytes(plan, disturbance.device),
                          machine.device().staging());
        tensors.add(slices(plan, state, copy));
        if (rank == 0) outcome.position = position;
        direct.barrier("end").wait();
      },
      disturbance.delays);
  outcome.hashes = tensors.hashes();
  return outcome;
}

}  // namespace muster::small_run
