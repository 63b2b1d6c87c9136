#include "trainer/plan/run_plan.hpp"

#include <algorithm>

#include "comm/async_communicator.hpp"
#include "core/error.hpp"
#include "model/backend.hpp"
#include "model/update/adamw.hpp"
#include "model/update/sgd.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/training_step.hpp"

namespace muster {
namespace {

// Beyond it, figures of the plan would overflow before anything is refused for its memory.
constexpr std::int64_t most_parameters = std::int64_t{1} << 42;
// The schedule of a step lists each.
constexpr std::int64_t most_micro_batches = 1 << 18;

Division divide(const Config& config, int ranks) {
  const TrainConfig& train = config.train;
  check(train.micro_batch > 0, "a plan without for_ranks()");
  const auto micro_batches = static_cast<int>(train.batch / train.micro_batch);
  if (micro_batches / ranks > most_micro_batches)
    throw UserError(
        "a step of {} micro-batches on {} ranks is beyond reason: raise train.micro_batch = {} or lower "
        "train.batch = {}",
        micro_batches, ranks, train.micro_batch, train.batch);
  if (train.reduction == Reduction::invariant) {
    if (ranks > train.shards)
      throw UserError(
          "{} ranks are more than train.shards = {}: start fewer ranks, or raise train.shards for a new run",
          ranks, train.shards);
    return {static_cast<int>(train.shards), micro_batches, train.micro_batch};
  }
  if (ranks > train.batch)
    throw UserError(
        "{0} ranks are more than the train.batch = {1} sequences of a step: start at most {1}, or a new run "
        "with "
        "a larger train.batch",
        ranks, train.batch);
  if (ranks > micro_batches)
    throw UserError(
        "{} ranks are more than the {} micro-batches of a step (train.batch = {} in train.micro_batch = {}): "
        "set "
        "train.micro_batch = 0, which follows the ranks",
        ranks, micro_batches, train.batch, train.micro_batch);
  return {ranks, micro_batches, train.micro_batch};
}

}  // namespace

Loader::Options loader_options(const Config& config, Split split) {
  return {config.train.sequence,
          static_cast<std::uint64_t>(config.run.seed),
          split,
          config.data.documents,
          config.data.document_start,
          static_cast<std::uint32_t>(config.model.vocabulary),
          split == Split::validation ? config.eval.windows : 0,
          static_cast<std::uint32_t>(family_of(config.model).own_tokens)};
}

MicroBatchShape micro_batch_shape(const Config& config) {
  MicroBatchShape shape{config.train.micro_batch, config.train.sequence, 0};
  if (config.data.documents)
    shape.document_starts =
        Loader::max_documents(config.train.micro_batch, loader_options(config, Split::train)) + 1;
  return shape;
}

std::uint64_t snapshot_bytes(const RunPlan& plan, DeviceKind device) {
  return device == DeviceKind::cpu
             ? 0
             : (1 + plan.optimizer->slots().size()) *
                   static_cast<std::uint64_t>(owned_elements(plan.buckets, plan.rank)) * sizeof(float);
}

std::shared_ptr<const Optimizer> optimizer_of(const OptimizerConfig& config) {
  if (config.kind == OptimizerKind::sgd)
    return std::make_shared<Sgd>(config.momentum, config.nesterov, config.weight_decay);
  return std::make_shared<AdamW>(config.betas, config.epsilon, config.weight_decay);
}

std::vector<Field> micro_batch_fields(const Config& config) {
  return make_model(config.model)->fields(micro_batch_shape(config));
}

Prefetch::Fill filler(const Config& config, Loader& loader) {
  const std::shared_ptr<const Model> model = make_model(config.model);
  const std::vector<Field> known = Loader::fields(config.train.micro_batch, loader.options());
  for (const Field& field : model->fields(micro_batch_shape(config)))
    if (!model->derives(field.name) && std::ranges::find(known, field) == known.end())
      throw UserError(
          "model.family = {} reads {}, which a dataset of tokens does not have: choose another family",
          spelling(config.model.family), field.name);
  return [model, &loader, seed = static_cast<std::uint64_t>(config.run.seed)](
             std::int64_t first_slot, std::int64_t count, Batch& batch) {
    loader.fill(first_slot, count, batch);
    model->derive(batch, {first_slot, count, seed});
  };
}

RunPlan make_run_plan(const Config& config, int ranks, int rank, int threads, std::uint64_t data_bytes,
                      DeviceKind device, bool communicator_sums) {
  const Division division = divide(config, ranks);
  const MicroBatchShape shape = micro_batch_shape(config);
  const KernelTable& kernels = kernels_of(device);
  const std::unique_ptr<Model> model = make_model(config.model);
  if (model->parameters().elements() > most_parameters)
    throw UserError(
        "a model of {} parameters is beyond any machine: lower model.layers, model.width or model.vocabulary",
        model->parameters().logical_elements());
  RunPlan plan;
  plan.training =
      make_plan(model->training(shape, config.run.precision, config.train.recompute), kernels, threads);
  plan.evaluation = make_plan(model->evaluation(shape, config.run.precision), kernels, threads);
  plan.division = division;
  plan.rank = rank;
  plan.ranks = ranks;
  for (int r = 0; r < ranks; ++r) {
    const LeafRange range = shards_of_rank(division.leaves, ranks, r);
    plan.leaves.push_back(range);
    for (const Subtree& root : roots_of_range(division.leaves, range.begin, range.end)) {
      plan.roots.push_back(root);
      plan.root_owner.push_back(r);
    }
  }
  const LeafRange mine = plan.leaves[static_cast<std::size_t>(rank)];
  plan.gradient_buffers = buffers_needed(division.leaves, mine.begin, mine.end);
  plan.optimizer = optimizer_of(config.optimizer);
  plan.sharded = config.train.sharding == 1;
  plan.buckets = make_buckets(plan.parameters().elements(), ranks);
  for (const Bucket& bucket : plan.buckets)
    plan.updated.push_back(plan.sharded ? bucket.pieces[static_cast<std::size_t>(rank)] : bucket.range);
  plan.flops_per_step = plan.training.matrix_flops * static_cast<double>(division.micro_batches);

  plan.reduce_scatters = communicator_sums && config.train.reduction == Reduction::fast && ranks > 1;
  plan.schedule = make_step_schedule(plan);
  plan.bytes_sent_per_step = plan.schedule.bytes_sent();

  plan.memory = ModelState::bytes(plan, config);
  plan.memory[static_cast<std::size_t>(MemoryKind::communication)] = TrainingStep::bytes(plan);
  MemoryByKind& host = device == DeviceKind::cpu ? plan.memory : plan.host_memory;
  host[static_cast<std::size_t>(MemoryKind::data)] = data_bytes;
  host[static_cast<std::size_t>(MemoryKind::checkpoint)] = Buffer::counted(snapshot_bytes(plan, device));
  host[static_cast<std::size_t>(MemoryKind::communication)] +=
      TrainingStep::host_bytes() + (ranks > 1 ? Buffer::counted(AsyncCommunicator::staging_bytes) : 0);
  return plan;
}

}  // namespace muster
