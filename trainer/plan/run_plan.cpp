#include "trainer/plan/run_plan.hpp"

#include <algorithm>

#include "comm/async_communicator.hpp"
#include "core/error.hpp"
#include "model/backend.hpp"

namespace muster {
namespace {

// Beyond it, figures of the plan would overflow before anything is refused for its memory.
constexpr std::int64_t most_parameters = std::int64_t{1} << 42;

Division divide(const Config& config, int ranks) {
  const TrainConfig& train = config.train;
  check(train.micro_batch > 0, "a plan without for_ranks()");
  const auto micro_batches = static_cast<int>(train.batch / train.micro_batch);
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
          static_cast<std::uint32_t>(config.model.vocabulary)};
}

LanguageModelShape micro_batch_shape(const Config& config) {
  LanguageModelShape shape{config.train.micro_batch, config.train.sequence, 0};
  if (config.data.documents)
    shape.document_starts =
        Loader::max_documents(config.train.micro_batch, loader_options(config, Split::train)) + 1;
  return shape;
}

std::uint64_t snapshot_bytes(const RunPlan& plan, DeviceKind device) {
  return device == DeviceKind::cpu
             ? 0
             : 3 * static_cast<std::uint64_t>(owned_elements(plan.buckets, plan.rank)) * sizeof(float);
}

RunPlan make_run_plan(const Config& config, int ranks, int rank, int threads, std::uint64_t data_bytes,
                      DeviceKind device, bool communicator_sums) {
  const Division division = divide(config, ranks);
  const LanguageModelShape shape = micro_batch_shape(config);
  const KernelTable& kernels = kernels_of(device);
  const LanguageModel model(config.model);
  if (model.parameters().elements() > most_parameters)
    throw UserError(
        "a model of {} parameters is beyond any machine: lower model.layers, model.width or model.vocabulary",
        model.parameters().logical_elements());
  RunPlan plan;
  plan.training =
      make_plan(model.training(shape, config.run.precision, config.train.recompute), kernels, threads);
  plan.evaluation = make_plan(model.evaluation(shape, config.run.precision), kernels, threads);
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
  plan.buckets = make_buckets(plan.parameters().elements(), ranks);
  for (const Bucket& bucket : plan.buckets)
    plan.updated.push_back(config.train.sharding == 0 ? bucket.range
                                                      : bucket.pieces[static_cast<std::size_t>(rank)]);
  plan.flops_per_step = plan.training.matrix_flops * static_cast<double>(division.micro_batches);

  const auto elements = static_cast<std::uint64_t>(plan.parameters().elements());
  std::uint64_t updated = 0;
  for (const Range& range : plan.updated) updated += static_cast<std::uint64_t>(range.size());
  const std::int64_t my_roots = std::count(plan.root_owner.begin(), plan.root_owner.end(), rank);
  const std::int64_t foreign_roots = static_cast<std::int64_t>(plan.roots.size()) - my_roots;
  plan.reduce_scatters = communicator_sums && config.train.reduction == Reduction::fast && ranks > 1;
  const auto piece = static_cast<std::uint64_t>(owned_elements(plan.buckets, rank));
  const std::uint64_t blocks = elements / static_cast<std::uint64_t>(flat_block);

  const auto bytes = [&](MemoryKind kind) -> std::uint64_t& {
    return plan.memory[static_cast<std::size_t>(kind)];
  };
  bytes(MemoryKind::parameters) = Buffer::counted(elements * 4);
  bytes(MemoryKind::compute_weights) =
      config.run.precision == Precision::bf16 ? Buffer::counted(elements * 2) : 0;
  bytes(MemoryKind::gradients) =
      Buffer::counted(elements * 4) * static_cast<std::uint64_t>(plan.gradient_buffers);
  bytes(MemoryKind::optimizer) = 2 * Buffer::counted(updated * 4);
  bytes(MemoryKind::activations) =
      Buffer::counted(std::max(plan.training.arena_bytes, plan.evaluation.arena_bytes));
  bytes(MemoryKind::communication) =
      (plan.reduce_scatters ? 0 : Buffer::counted(piece * 4 * static_cast<std::uint64_t>(foreign_roots))) +
      Buffer::counted(blocks * sizeof(double)) +
      Buffer::counted(static_cast<std::uint64_t>(division.leaves) * sizeof(LeafReport)) +
      Buffer::counted(sizeof(StepOutcome));

  MemoryByKind& host = device == DeviceKind::cpu ? plan.memory : plan.host_memory;
  host[static_cast<std::size_t>(MemoryKind::data)] = data_bytes;
  host[static_cast<std::size_t>(MemoryKind::checkpoint)] = Buffer::counted(snapshot_bytes(plan, device));
  host[static_cast<std::size_t>(MemoryKind::communication)] +=
      Buffer::counted(most_pending * sizeof(StepOutcome)) +
      (ranks > 1 ? Buffer::counted(AsyncCommunicator::staging_bytes) : 0);

  // To each owner its piece of my roots; to all others the losses of my leaves, my piece of the blocks of the
  // norm, and that of the parameters (with sharding 0, of the summed gradients).
  const auto others = static_cast<std::uint64_t>(ranks - 1);
  plan.bytes_sent_per_step =
      (elements - piece) * 4 * static_cast<std::uint64_t>(my_roots) +
      others * (static_cast<std::uint64_t>(mine.end - mine.begin) * sizeof(LeafReport) +
                piece / flat_block * sizeof(double) + piece * 4);
  return plan;
}

}  // namespace muster
