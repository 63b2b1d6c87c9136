// A training step of one rank as a list of what it does, in order. Nothing else orders a step: trainer/step executes the
// entries one by one, cost.hpp prices them, `muster plan --steps` tells them, and messages bear their names in traces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace muster {

struct RunPlan;

// Leaves and micro-batches are counted over all ranks, gradient spaces and buckets as in RunPlan; `bytes` is what this
// rank sends.
namespace entry {

// The reports of this rank's leaves begin anew.
struct ClearReports {};
// The next micro-batch comes from the prefetch ring into the inputs of the training plan.
struct TakeBatch {
  int leaf = 0, micro_batch = 0;
};
// Steps [begin, end) of the training plan, whose gradients start a space or are added to what it holds.
struct RunKernels {
  int leaf = 0, micro_batch = 0;
  std::size_t begin = 0, end = 0;
  int space = 0;
  bool accumulate = false;
};
// What came of the micro-batch is added to the report of its leaf.
struct Report {
  int leaf = 0, micro_batch = 0;
};
// Gradient space `left` += `right`: a bucket of it, or all.
struct Add {
  int left = 0, right = 0;
  std::optional<std::size_t> bucket;
};
// The new values of a bucket's parameters are there, and in the type of the computation.
struct Receive {
  std::size_t bucket = 0;
};
// A bucket of this rank's gradients leaves for those who own its pieces.
struct Send {
  std::size_t bucket = 0;
  std::uint64_t bytes = 0;
};
// Losses, targets and signals of all leaves go to all ranks.
struct ShareReports {
  std::uint64_t bytes = 0;
};
// What arrived of a bucket becomes the sum of this rank's piece, by so many additions.
struct FinishSum {
  std::size_t bucket = 0;
  int additions = 0;
};
// The squares of that piece, for the norm.
struct Squares {
  std::size_t bucket = 0;
};
struct ShareSquares {
  std::uint64_t bytes = 0;
};
// Loss, norm, clip factor, and whether to skip the update.
struct Decide {};
// train.sharding = 0: the summed gradients of a bucket go to all ranks.
struct ShareGradients {
  std::size_t bucket = 0;
  std::uint64_t bytes = 0;
};
struct Update {
  std::size_t bucket = 0;
};
// train.sharding = 1: new values begin to go to all ranks.
struct Gather {
  std::size_t bucket = 0;
  std::uint64_t bytes = 0;
};

}  // namespace entry

using StepEntry =
    std::variant<entry::ClearReports, entry::TakeBatch, entry::RunKernels, entry::Report, entry::Add,
                 entry::Receive, entry::Send, entry::ShareReports, entry::FinishSum, entry::Squares,
                 entry::ShareSquares, entry::Decide, entry::ShareGradients, entry::Update, entry::Gather>;

struct StepSchedule {
  std::vector<StepEntry> entries;

  std::uint64_t bytes_sent() const;
};

// From how the work of `plan` is divided: its leaves, roots, buckets and training plan.
StepSchedule make_step_schedule(const RunPlan& plan);

// What it does, in a few words: "reduction of gradients, bucket 3".
std::string name_of(const StepEntry& entry);

// One function of several, by type: for std::visit.
template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

}  // namespace muster
