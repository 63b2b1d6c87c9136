#include "trainer/commands/plan.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "core/host.hpp"
#include "core/parallel.hpp"
#include "trainer/bench/measure.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/machine/matrix_peak.hpp"
#include "trainer/machine/rank_machine.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/plan/remedies.hpp"
#include "trainer/plan/report.hpp"
#include "trainer/plan/schedule_text.hpp"
#include "trainer/run/run_data.hpp"

namespace muster {
namespace {

// A model is planned before its data are prepared.
bool is_prepared(const Config& config) {
  const std::vector<DataSource> sources = config.data.sources();
  return !sources.empty() && std::ranges::all_of(sources, [](const DataSource& source) {
    std::error_code unreadable;
    return std::filesystem::exists(source.path, unreadable);
  });
}

// This host, measured as it would be shared by the ranks of a node.
DeviceModel measure_cpu(const Config& config, int ranks_per_node) {
  DeviceModel device;
  on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    Machine machine(cpu_device(), account);
    const int cores = threads_of_rank(0, 1), threads = threads_of_rank(config.run.threads, ranks_per_node);
    set_thread_count(std::min(cores, threads * ranks_per_node));
    const MatrixPeak peak = measure_matrix_peak(config.run.precision, comm, machine);
    if (!peak.remark.empty() && comm.rank() == 0) fmt::print(stderr, "{}\n", peak.remark);
    set_thread_count(cores);
    const double bandwidth = measure_copy_bandwidth(machine);
    device = cpu_model(peak.flops_per_s / ranks_per_node, bandwidth / ranks_per_node,
                       available_host_bytes() / static_cast<std::uint64_t>(ranks_per_node),
                       threads * ranks_per_node >= cores);
    return 0;
  });
  return device;
}

Outlook look_out(const PlanOptions& options, const Config& config, const RunPlan& plan) {
  Outlook outlook;
  const bool cpu = options.on == "cpu";
  constexpr int usual_gpus = 8;
  outlook.ranks_per_node = options.ranks_per_node > 0 ? options.ranks_per_node
                           : cpu                      ? options.ranks
                                                      : usual_gpus;
  if (options.ranks > outlook.ranks_per_node && options.ranks % outlook.ranks_per_node != 0)
    throw UserError("{} ranks do not fill nodes of {}: give --ranks-per-node a divisor of --ranks",
                    options.ranks, outlook.ranks_per_node);
  outlook.device = cpu ? measure_cpu(config, std::min(options.ranks, outlook.ranks_per_node))
                       : gpu_model(options.on, config.run.precision);
  outlook.step =
      predict_step(outlook.device, outlook.ranks_per_node, config, plan, plan_times(outlook.device, plan));
  return outlook;
}

}  // namespace

int plan_command(const PlanOptions& options, bool tells) {
  Config told = read_config(options.config, options.overrides);
  std::uint64_t runtime = resident_bytes();
  std::uint64_t data_bytes = 0;
  if (is_prepared(told)) {
    const RunData data(told);
    told = for_data(told, data);
    data_bytes = data.memory(for_ranks(told, options.ranks));
  } else if (told.model.vocabulary == 0) {
    throw UserError(
        "{}: neither model.vocabulary nor prepared data tell the vocabulary: set one, as "
        "--model.vocabulary=50257",
        options.config);
  } else if (tells) {
    fmt::print(stderr, "the data are not prepared: the plan leaves out what loading them takes\n");
  }
  const Config config = for_ranks(told, options.ranks);
  // As many threads as a rank would take if all of them ran on this host.
  const int threads = threads_of_rank(config.run.threads, options.ranks);
  const bool gpu = !options.on.empty() && options.on != "cpu";
  const RunPlan plan = make_run_plan(config, options.ranks, 0, threads, data_bytes,
                                     gpu ? DeviceKind::cuda : DeviceKind::cpu, gpu);
  std::optional<Outlook> outlook;
  if (!options.on.empty()) {
    outlook = look_out(options, config, plan);
    if (gpu) runtime = gpu_runtime_bytes(options.ranks);
    const auto demand = [&](const Start& start) {
      const RunPlan other = make_run_plan(for_ranks(start.config, start.ranks), start.ranks, 0, threads,
                                          data_bytes, gpu ? DeviceKind::cuda : DeviceKind::cpu, gpu);
      return gpu ? demand_on(outlook->device, other.memory, gpu_runtime_bytes(start.ranks))
                 : demand_on_host(other.memory, available_host_bytes(), start.local_ranks);
    };
    const Start start{told, options.ranks, std::min(options.ranks, outlook->ranks_per_node)};
    refuse_if_too_large(demand(start), [&] { return remedies(start, demand, !gpu); });
  }
  if (!tells) return 0;
  const Outlook* shown = outlook ? &*outlook : nullptr;
  if (options.json) {
    fmt::print("{}\n", describe_json(plan, config, runtime, shown, options.steps));
    return 0;
  }
  fmt::print("{}\n", describe(plan, config, runtime, shown));
  if (options.steps)
    fmt::print("\na step of rank {}\n  {}\n", plan.rank, fmt::join(describe_steps(plan), "\n  "));
  return 0;
}

}  // namespace muster
