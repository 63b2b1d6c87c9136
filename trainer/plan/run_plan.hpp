// Everything about a run that is known before it starts: shapes, memory by kind, communication and cost.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/reduction.hpp"
#include "core/device.hpp"
#include "data/loader.hpp"
#include "model/families/language_model.hpp"
#include "model/graph/plan.hpp"
#include "trainer/config/config.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/plan/ownership.hpp"

namespace muster {

// How the G sequences of a step become micro-batches, and these leaves of the reduction tree. Invariant: the leaves are
// the V shards whatever the number of ranks; fast: one leaf a rank, the first with a micro-batch more where ranks do
// not divide them.
struct Division {
  int leaves = 1;
  int micro_batches = 1;  // of a step
  std::int64_t micro_batch = 1;

  LeafRange micro_batches_of(int leaf) const { return shards_of_rank(micro_batches, leaves, leaf); }
};

struct RunPlan {
  Plan training;
  Plan evaluation;
  Division division;
  std::vector<LeafRange> leaves;  // by rank
  std::vector<Subtree> roots;     // of all ranks, in order
  std::vector<int> root_owner;    // the rank that computes each
  std::vector<Bucket> buckets;
  // By bucket: what this rank updates; its piece, or all of it with train.sharding = 0.
  std::vector<Range> updated;
  int gradient_buffers = 1;
  bool reduce_scatters = false;  // the communicator sums the gradients; else all_to_all and the tree
  int rank = 0;
  int ranks = 1;

  MemoryByKind memory{};                  // of the device; on CPUs all there is
  MemoryByKind host_memory{};             // beside a GPU's
  std::uint64_t bytes_sent_per_step = 0;  // by this rank
  double flops_per_step = 0;              // of all ranks

  const ParameterSpace& parameters() const { return *training.graph.space; }
  std::uint64_t total_bytes() const { return total_of(memory); }
  // Of this rank.
  const LeafRange& own_leaves() const { return leaves[static_cast<std::size_t>(rank)]; }
  int own_micro_batches() const {
    return division.micro_batches_of(own_leaves().end - 1).end -
           division.micro_batches_of(own_leaves().begin).begin;
  }
  const Range& own_piece(std::size_t bucket) const {
    return buckets[bucket].pieces[static_cast<std::size_t>(rank)];
  }
};

// `data_bytes` is what loaders and prefetch rings take. Throws UserError when the configuration, which is to come from
// for_ranks(), cannot be divided over `ranks`. The device may be elsewhere. `communicator_sums`: as Communicator::sums() will say.
RunPlan make_run_plan(const Config& config, int ranks, int rank, int threads, std::uint64_t data_bytes,
                      DeviceKind device = DeviceKind::cpu, bool communicator_sums = false);

// What a copy of what this rank saves takes of the host's memory; nothing on CPUs, where it lies there anyway.
std::uint64_t snapshot_bytes(const RunPlan& plan, DeviceKind device);

// One micro-batch as the model's graphs take it.
LanguageModelShape micro_batch_shape(const Config& config);
Loader::Options loader_options(const Config& config, Split split);
// The host may be so many steps ahead of what it has read of their outcomes.
inline constexpr std::size_t most_pending = 2;
// Batches in the prefetch ring.
inline constexpr int prefetch_depth = 3;

}  // namespace muster
