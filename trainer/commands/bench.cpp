#include "trainer/commands/bench.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/instruction_set.hpp"
#include "core/parallel.hpp"
#include "core/text.hpp"
#include "model/families/family.hpp"
#include "trainer/bench/comm.hpp"
#include "trainer/bench/measure.hpp"
#include "trainer/bench/ops.hpp"
#include "trainer/bench/scaling.hpp"
#include "trainer/bench/step.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/machine/matrix_peak.hpp"
#include "trainer/machine/rank_machine.hpp"
#include "trainer/run/run_data.hpp"

namespace muster {
namespace {

using nlohmann::ordered_json;

// The configuration of a benchmark: the data are asked for nothing but the vocabulary, where that is not set.
Config config_of(Communicator& comm, const BenchOptions& options) {
  Config config = agree(comm, "reading the configuration", [&] {
    const Config read = read_config(options.config, options.overrides);
    return read.model.vocabulary == 0 ? for_data(read, RunData(read)) : read;
  });
  set_thread_count(threads_of_rank(config.run.threads, ranks_on_my_cores(comm)));
  return config;
}

std::string head(const Machine& machine, int ranks) {
  const std::string set = machine.is_cpu() ? fmt::format(" ({})", spelling(instruction_set())) : "";
  return fmt::format("{}{}, {} rank{}, {} thread{} each", machine.device().name(), set, ranks,
                     ranks == 1 ? "" : "s", thread_count(), thread_count() == 1 ? "" : "s");
}

void tell(const MatrixPeak& peak) {
  if (!peak.remark.empty()) fmt::print(stderr, "{}\n", peak.remark);
}

void print_ops(const std::vector<OpSpeed>& speeds, const Ceilings& ceilings) {
  fmt::print("products can reach {:.1f} GFLOP/s, a copy {:.1f} GB/s from memory to memory\n\n",
             1e-9 * ceilings.matrix_peak, 1e-9 * ceilings.memory_bandwidth);
  fmt::print("{:<24}{:>6}{:>12}{:>12}{:>10}{:>10}{:>11}  shapes\n", "op", "calls", "ms", "GFLOP/s", "GB/s",
             "copy GB/s", "share of");
  for (const OpSpeed& speed : speeds)
    fmt::print("{:<24}{:>6}{:>12.4f}{:>12}{:>10.1f}{:>10.1f}{:>5.0f}% {:<8}  {}\n", speed.op,
               speed.calls > 0 ? std::to_string(speed.calls) : "-", 1e3 * speed.seconds,
               speed.flops > 0 ? fmt::format("{:.1f}", 1e-9 * speed.flops / speed.seconds) : "-",
               1e-9 * speed.bytes / speed.seconds, 1e-9 * speed.copy, 100 * speed.share, name_of(speed.limit),
               speed.shapes);
}

ordered_json ops_json(const std::vector<OpSpeed>& speeds) {
  ordered_json rows = ordered_json::array();
  for (const OpSpeed& speed : speeds)
    rows.push_back({{"op", speed.op},
                    {"shapes", speed.shapes},
                    {"calls", speed.calls},
                    {"seconds", speed.seconds},
                    {"flops_per_s", speed.flops / speed.seconds},
                    {"bytes_per_s", speed.bytes / speed.seconds},
                    {"copy_bytes_per_s", speed.copy},
                    {"ceiling", name_of(speed.limit)},
                    {"share", speed.share}});
  return rows;
}

void print_step(const StepTable& table, const Config& config, double sol) {
  const auto tokens = static_cast<double>(config.train.batch * config.train.sequence);
  fmt::print(
      "step {:.2f} ms, {} tokens/s, sol {:.1f}%, exposed communication {:.2f} ms; kernel by kernel {:.2f} "
      "ms:\n\n",
      1e3 * table.seconds, human_count(tokens / table.seconds), 100 * sol, 1e3 * table.exposed,
      1e3 * table.timed_seconds);
  fmt::print("{:<28}{:>8}{:>12}{:>9}\n", "op", "calls", "ms", "share");
  const auto line = [&](std::string_view name, const std::string& calls, double seconds) {
    fmt::print("{:<28}{:>8}{:>12.3f}{:>8.1f}%\n", name, calls, 1e3 * seconds,
               100 * seconds / table.timed_seconds);
  };
  for (const OpShare& row : table.rows) line(row.name, std::to_string(row.calls), row.seconds);
  line("update, communication, gaps", "", table.rest);
}

ordered_json step_json(const StepTable& table, double sol) {
  ordered_json json = {{"step_seconds", table.seconds},
                       {"sol", sol},
                       {"exposed_communication_seconds", table.exposed},
                       {"timed_step_seconds", table.timed_seconds},
                       {"ops", ordered_json::array()},
                       {"rest_seconds", table.rest}};
  for (const OpShare& row : table.rows)
    json["ops"].push_back({{"op", row.name}, {"calls", row.calls}, {"seconds", row.seconds}});
  return json;
}

void print_collective(const CollectiveSpeed& speed) {
  fmt::print("{:<16}{:>12}{:>12.1f}{:>12.3f}{:>12.3f}\n", speed.collective, speed.bytes, 1e6 * speed.seconds,
             1e-9 * speed.algbw(), 1e-9 * speed.busbw());
  std::fflush(stdout);
}

void print_scaling_heading() {
  fmt::print("{:<8}{:>6}{:>8}{:>12}{:>12}{:>12}{:>14}{:>14}{:>14}\n", "", "ranks", "batch", "step ms",
             "tokens/s", "efficiency", "exposed ms", "predicted ms", "imbalance ms");
  std::fflush(stdout);
}

void print_scaling(const ScalingRow& row) {
  fmt::print("{:<8}{:>6}{:>8}{:>12.2f}{:>12}{:>12}{:>14.2f}{:>14.2f}{:>14.2f}\n", row.mode, row.ranks,
             row.batch, 1e3 * row.figures.step_seconds, human_count(row.tokens_per_s),
             row.efficiency > 0 ? fmt::format("{:.1f}%", 100 * row.efficiency) : "-",
             1e3 * row.figures.exposed, 1e3 * row.figures.predicted_exposed, 1e3 * row.figures.imbalance);
  std::fflush(stdout);
}

ordered_json scaling_json(const std::vector<ScalingRow>& rows) {
  ordered_json json = ordered_json::array();
  for (const ScalingRow& row : rows)
    json.push_back({{"mode", row.mode},
                    {"ranks", row.ranks},
                    {"batch", row.batch},
                    {"step_seconds", row.figures.step_seconds},
                    {"tokens_per_s", row.tokens_per_s},
                    {"efficiency", row.efficiency},
                    {"exposed_seconds", row.figures.exposed},
                    {"predicted_step_seconds", row.figures.predicted_seconds},
                    {"predicted_exposed_seconds", row.figures.predicted_exposed},
                    {"imbalance_seconds", row.figures.imbalance}});
  return json;
}

}  // namespace

int bench_ops_command(const BenchOptions& options) {
  return on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    const Config config = for_ranks(config_of(comm, options), comm.size());
    RankMachine rank(config, comm, account);
    Machine& machine = rank.machine();
    const MatrixPeak peak = measure_matrix_peak(config.run.precision, comm, machine);
    if (comm.rank() == 0) tell(peak);
    const std::uint64_t cache_bytes = last_level_cache(machine.device());
    comm.barrier("measuring copies").wait();
    FastestCopy copy(machine, cache_bytes);
    const Ceilings ceilings{peak.flops_per_s, copy.bytes_per_s(8.0 * static_cast<double>(cache_bytes)),
                            [&](double bytes) { return copy.bytes_per_s(bytes); }};
    const std::unique_ptr<Model> model = make_model(config.model);
    const Plan plan =
        make_plan(model->training(micro_batch_shape(config), config.run.precision, config.train.recompute),
                  machine.backend().kernels, thread_count());
    const std::vector<OpSpeed> speeds = bench_ops(plan, machine, ceilings, cache_bytes);
    if (comm.rank() != 0) return 0;
    if (options.json) {
      fmt::print("{}\n", ordered_json{{"device", machine.device().name()},
                                      {"products_flops_per_s", ceilings.matrix_peak},
                                      {"copy_bytes_per_s", ceilings.memory_bandwidth},
                                      {"ops", ops_json(speeds)}}
                             .dump(2));
    } else {
      fmt::print("{}, {}; ", head(machine, comm.size()), spelling(config.run.precision));
      print_ops(speeds, ceilings);
    }
    return 0;
  });
}

int bench_step_command(const BenchStepOptions& options) {
  return on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    const Config config = for_ranks(config_of(comm, options), comm.size());
    RankMachine rank(config, comm, account);
    const MatrixPeak peak = measure_matrix_peak(config.run.precision, comm, rank.machine());
    SyntheticRun run(config, rank.ranks(), rank.machine());
    const StepTable table = bench_step(run, options.steps);
    if (comm.rank() != 0) return 0;
    tell(peak);
    const double sol =
        speed_of_light(run.plan().flops_per_step, peak.flops_per_s, comm.size(), table.seconds);
    if (options.json) {
      fmt::print("{}\n", step_json(table, sol).dump(2));
    } else {
      fmt::print("{}, {}: ", head(rank.machine(), comm.size()), spelling(config.run.precision));
      print_step(table, config, sol);
    }
    return 0;
  });
}

int bench_comm_command(const BenchOptions& options) {
  return on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    Config config;
    agree(comm, "reading the options", [&] {
      for (const Override& given : options.overrides)
        if (given.key != "run.device" && given.key != "run.threads")
          throw UserError("muster bench comm runs no model, so --{} has no meaning here; leave it out",
                          given.key);
      apply_overrides(config, options.overrides);
      if (comm.size() == 1)
        throw UserError("one rank has nobody to talk to: start several, as mpirun -n 2 muster bench comm");
    });
    set_thread_count(threads_of_rank(config.run.threads, ranks_on_my_cores(comm)));
    RankMachine rank(config, comm, account);
    const bool speaks = comm.rank() == 0 && !options.json;
    if (speaks)
      fmt::print("{}\n\n{:<16}{:>12}{:>12}{:>12}{:>12}\n", head(rank.machine(), comm.size()), "collective",
                 "bytes", "us", "algbw GB/s", "busbw GB/s");
    ordered_json rows = ordered_json::array();
    Communicator& device = rank.ranks().device;
    for (const std::string& collective : collectives_of(device))
      for (const std::uint64_t size : collective_sizes()) {
        // Staging memory has room for a bucket.
        if (rank.ranks().staging_bytes > 0 && size > sizeof(float) * bucket_elements) continue;
        const CollectiveSpeed speed = measure_collective(device, rank.machine(), collective, size);
        if (speaks) print_collective(speed);
        rows.push_back({{"collective", speed.collective},
                        {"ranks", speed.ranks},
                        {"bytes", speed.bytes},
                        {"seconds", speed.seconds},
                        {"algbw", speed.algbw()},
                        {"busbw", speed.busbw()}});
      }
    if (comm.rank() == 0 && options.json) fmt::print("{}\n", rows.dump(2));
    return 0;
  });
}

int bench_scaling_command(const BenchScalingOptions& options) {
  return on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    const Config config = config_of(comm, options);
    const bool speaks = comm.rank() == 0 && !options.json;
    if (speaks) print_scaling_heading();
    const std::vector<ScalingRow> rows =
        bench_scaling(config, comm, account, options.steps, [&](const ScalingRow& row) {
          if (speaks) print_scaling(row);
        });
    agree(comm, "writing the figures", [&] {
      if (comm.rank() != 0) return;
      if (options.json) fmt::print("{}\n", scaling_json(rows).dump(2));
      if (options.output.empty()) return;
      std::error_code failed;
      std::filesystem::create_directories(options.output, failed);
      if (failed)
        throw UserError("cannot make the folder {} ({}): choose another --output", options.output,
                        failed.message());
      write_text_atomically(options.output + "/scaling.csv", scaling_csv(rows));
      fmt::print(stderr, "wrote {0}/scaling.csv; ./launch/plot-scaling {0} draws it\n", options.output);
    });
    return 0;
  });
}

}  // namespace muster
