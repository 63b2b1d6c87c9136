#include "trainer/bench/scaling.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "comm/agree.hpp"
#include "core/parallel.hpp"
#include "trainer/bench/link_probe.hpp"
#include "trainer/bench/measure.hpp"
#include "trainer/bench/step.hpp"
#include "trainer/machine/rank_machine.hpp"

namespace muster {
namespace {

// The ranks wait at the same points: what none of them is spared is no imbalance.
double spared_to_none(Communicator& comm, std::vector<double> waits) {
  for (double& wait : waits) wait = -wait;
  comm.all_reduce(std::as_writable_bytes(std::span(waits)), ReduceType::f64, ReduceOp::max, "shortest waits")
      .wait();
  return -std::accumulate(waits.begin(), waits.end(), 0.0);
}

// Less than 1 where several share one: each then waits for the others.
double cores_of_thread(Communicator& comm) {
  const int threads = ranks_on_my_cores(comm).on_cores * thread_count();
  return std::min(1.0, static_cast<double>(threads_of_rank(0, 1)) / threads);
}

bool divides(const Config& config, int ranks) {
  try {
    make_run_plan(config, ranks, 0, 1, 0);
    return true;
  } catch (const UserError&) {
    return false;
  }
}

ScalingFigures measure(const Config& config, Communicator& comm, MemoryAccount& account, int steps) {
  RankMachine rank(config, comm, account);
  Machine& machine = rank.machine();
  DeviceModel device;
  if (const auto known = model_of_gpu(machine.device().name(), config.run.precision))
    device.peak = known->peak;
  device.kind = machine.device().kind();
  device.busy_cores = machine.is_cpu() && comm.local_size() == comm.size() &&
                      thread_count() >= threads_of_rank(0, ranks_on_my_cores(comm));
  // Of the ranks that share cores some measure while others do not.
  device.bandwidth = -least_of_ranks(comm, -measure_copy_bandwidth(machine), "bandwidth");
  if (machine.is_cpu()) device.bandwidth *= cores_of_thread(comm);

  SyntheticRun run(config, rank.ranks(), machine);
  std::optional<LinkProbe> probe;
  if (comm.size() > 1) probe.emplace(rank.ranks().device, machine);
  std::vector<StepSample> samples;
  std::vector<SyntheticRun::Timed> timed;
  run.run(2);  // libraries choose their algorithms, graphs are recorded
  while (static_cast<int>(samples.size()) < steps) {
    if (probe) probe->sample();
    // Also the step before those that count: they find its parameters still on the way.
    timed.push_back(run.run_timed());
    std::ranges::move(run.run(2), std::back_inserter(samples));
  }
  if (probe) device.within_node = probe->link();
  const StepTable table = step_table(run.plan(), std::move(samples), timed);
  const PlanTimes times{table.plan_seconds, table.plan_seconds};
  const StepPrediction predicted = predict_step(device, comm.size(), config, run.plan(), times);

  std::vector<double> exposed, waited;
  for (const StepSample& sample : table.samples) {
    exposed.push_back(spared_to_none(comm, sample.waits));
    waited.push_back(mean_of_ranks(comm, sample.exposed(), "waits"));
  }
  return {mean_of_ranks(comm, table.seconds, "step"), median(exposed),
          mean_of_ranks(comm, predicted.seconds, "predicted step"),
          mean_of_ranks(comm, predicted.exposed, "predicted waits"), median(waited) - median(exposed)};
}

}  // namespace

std::vector<int> scaling_counts(int ranks) {
  std::vector<int> counts;
  for (int n = 1; n <= std::min(ranks, 8); ++n) counts.push_back(n);
  for (int n = 16; n <= ranks; n *= 2) counts.push_back(n);
  if (counts.back() != ranks) counts.push_back(ranks);
  return counts;
}

std::vector<ScalingRow> bench_scaling(const Config& config, Communicator& world, MemoryAccount& account,
                                      int steps, const std::function<void(const ScalingRow&)>& tell) {
  std::vector<ScalingRow> rows;
  const auto add = [&](const ScalingRow& row) {
    rows.push_back(row);
    tell(row);
  };
  double alone = 0;  // tokens/s of one rank; a batch that it cannot take has no efficiency
  std::string why;   // of a number of ranks that is left out
  for (const char* mode : {"strong", "weak"}) {
    for (const int ranks : scaling_counts(world.size())) {
      const bool weak = mode == std::string_view("weak");
      Config scaled = for_ranks(config, weak ? 1 : ranks);
      if (weak) scaled.train.batch *= ranks;
      if (!divides(scaled, ranks)) continue;
      if (ranks == 1 && !rows.empty() && rows.front().ranks == 1) {  // the same step as before
        ScalingRow row = rows.front();
        row.mode = mode;
        add(row);
        continue;
      }
      const bool takes_part = world.rank() < ranks;
      const std::unique_ptr<Communicator> comm = world.split(takes_part ? 0 : 1, world.rank());
      ScalingFigures figures;
      std::string refusal;
      if (takes_part) try {
          figures = measure(scaled, *comm, account, steps);
        } catch (const UserError& error) {  // of all of these ranks: their memory does not suffice
          refusal = error.what();
        }
      why =
          gather_strings(world, refusal, "whether " + std::to_string(ranks) + " ranks can take the step")[0];
      if (!why.empty()) {
        if (world.rank() == 0) fmt::print(stderr, "{}, {} ranks, left out: {}\n", mode, ranks, why);
        continue;
      }
      world
          .broadcast(std::as_writable_bytes(std::span(&figures, 1)), 0, "figures of " + std::to_string(ranks))
          .wait();
      ScalingRow row{mode, ranks, scaled.train.batch, figures};
      row.tokens_per_s =
          static_cast<double>(scaled.train.batch * scaled.train.sequence) / figures.step_seconds;
      if (ranks == 1) alone = row.tokens_per_s;
      row.efficiency = alone > 0 ? row.tokens_per_s / (alone * ranks) : 0;
      add(row);
    }
  }
  agree(world, "measuring", [&] {
    if (rows.empty() && world.rank() == 0) throw UserError("no number of ranks can take the step: {}", why);
  });
  return rows;
}

std::string scaling_csv(const std::vector<ScalingRow>& rows) {
  std::string text =
      "mode,ranks,batch,step_seconds,tokens_per_s,efficiency,exposed_seconds,predicted_step_seconds,"
      "predicted_exposed_seconds,imbalance_seconds\n";
  for (const ScalingRow& row : rows)
    text += fmt::format("{},{},{},{:.6g},{:.6g},{:.4f},{:.6g},{:.6g},{:.6g},{:.6g}\n", row.mode, row.ranks,
                        row.batch, row.figures.step_seconds, row.tokens_per_s, row.efficiency,
                        row.figures.exposed, row.figures.predicted_seconds, row.figures.predicted_exposed,
                        row.figures.imbalance);
  return text;
}

}  // namespace muster
