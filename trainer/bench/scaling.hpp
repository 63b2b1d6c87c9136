// Strong and weak scaling: the same step on 1, 2, ... ranks, and steps that grow with the ranks, beside what the plan
// predicts. Ranks that take no part wait.
//
// The prediction takes the seconds of the plan's kernels as they were measured on as many ranks, the bandwidth of a
// copy, and latency and bandwidth of an exchange measured among these ranks; from these it tells how much of the
// communication stays exposed (trainer/plan/cost.hpp).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/memory.hpp"
#include "trainer/config/config.hpp"

namespace muster {

// Medians over steps; means over the ranks.
struct ScalingFigures {
  double step_seconds = 0;
  // Seconds a step that even the rank that waits least at a point waits there: who comes last waits for messages only.
  double exposed = 0;
  double predicted_seconds = 0;
  double predicted_exposed = 0;
  double imbalance = 0;  // that the ranks wait beyond that, for those that compute longer
};

struct ScalingRow {
  std::string mode;  // "strong", "weak"
  int ranks = 1;
  std::int64_t batch = 0;  // sequences a step
  ScalingFigures figures;
  double tokens_per_s = 0;  // of all ranks
  double efficiency =
      0;  // tokens/s of a rank, over those of one rank alone; 0: one alone could not take the step
};

// Counts of ranks that are measured: all up to eight, then powers of two, and all ranks.
std::vector<int> scaling_counts(int ranks);

// Collective over `world`; every rank returns all rows, and hands each to `tell` as soon as it is known. Counts by
// which the batch cannot be divided are left out.
std::vector<ScalingRow> bench_scaling(const Config& config, Communicator& world, MemoryAccount& account,
                                      int steps, const std::function<void(const ScalingRow&)>& tell);

std::string scaling_csv(const std::vector<ScalingRow>& rows);

}  // namespace muster
