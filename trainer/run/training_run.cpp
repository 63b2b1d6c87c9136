#include "trainer/run/training_run.hpp"

#include <fmt/format.h>
#include <optional>
#include <string>
#include <vector>

#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "trainer/build_info.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/failure.hpp"
#include "trainer/loop/training_loop.hpp"
#include "trainer/machine/matrix_peak.hpp"
#include "trainer/metrics/metrics_file.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/run/begin_attempt.hpp"
#include "trainer/run/data_limits.hpp"
#include "trainer/run/resume.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run/run_terms.hpp"
#include "trainer/run/tell_run.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

// A run whose folder is its own: what it is agreed to be.
struct OwnRun {
  const RunHost& host;
  const TimeLimit& limit;
  const RunData& data;
  const RunTerms& terms;
  const RunFolder& folder;
  const Attempt& attempt;
  const Log& log;
};

// The memory that it has taken, and what was loaded.
struct Loaded {
  Loader& loader;
  Prefetch& prefetch;
  const MatrixPeak& peak;
  ModelState& state;
  const Buffer& snapshot;
  const Position& position;
  MetricsFile* metrics;  // of rank 0
};

// Collective. What the folder tells of a run that goes on from `step`; on rank 0 the metrics, open.
std::optional<MetricsFile> write_run(const OwnRun& run, std::int64_t step) {
  const RunHost& host = run.host;
  const RunFolder& folder = run.folder;
  const Attempt& attempt = run.attempt;
  const RunState& state = run.terms.state;
  Communicator& comm = host.ranks.host;
  const std::vector<std::string> hosts = gather_strings(comm, host_name(), "host names");
  return agree(comm, "writing the run's folder", [&]() -> std::optional<MetricsFile> {
    if (!host.speaks()) return std::nullopt;
    const Pulse::Work work = comm.pulse().writing("writing the run's folder");
    // Reading a checkpoint takes time, in which another attempt may have begun.
    attempt.check_current();
    remove_leftovers(
        folder.checkpoints(), attempt.number(), [&](const std::string& line) { run.log.warn(line); },
        [&] { comm.pulse().beat(); });
    write_text_atomically(folder.config(), state.config);
    comm.pulse().beat();
    attempt.check_current();
    write_text_atomically(
        folder.description(),
        describe_run(attempt.number(), hosts, host.machine.device().name(), state.fingerprint));
    comm.pulse().beat();
    attempt.check_current();
    MetricsFile metrics(folder.metrics(), step);
    if (!metrics.remark().empty()) run.log.warn(metrics.remark());
    return metrics;
  });
}

// Held-out text and what evaluates it, which refers to it.
struct HeldOut {
  Loader loader;
  Evaluation evaluation;

  HeldOut(const RunTerms& terms, const RunData& data, const RunHost& host)
      : loader(data.validation(terms.config, host.machine.host_account())),
        evaluation(terms.config, terms.plan.evaluation, loader, host.ranks.host, host.machine) {}
};

void refuse_if_nothing_was_learnt(const LoopResult& result, const Config& config) {
  if (result.steps_taken > 0 && result.position.step == config.train.steps && result.position.updates == 0)
    throw UserError(
        "none of the {} steps changed the model (the lines before say why): start another run.dir, with "
        "other text "
        "or a smaller optimizer.lr",
        result.position.step);
}

// Collective. Compares what was taken with the plan, and takes the steps.
RunResult take_steps(const OwnRun& run, const Loaded& loaded) {
  const RunHost& host = run.host;
  const Config& config = run.terms.config;
  const RunPlan& plan = run.terms.plan;
  Communicator &comm = host.ranks.host, &device = host.ranks.device;

  std::optional<Watchdog> of_devices;
  if (host.ranks.devices_apart()) of_devices.emplace(device, config.run.watchdog);
  std::optional<StepTrace> trace;
  if (host.traced_step > 0)
    trace.emplace(device, fmt::format("{}/trace-step-{}-rank-{}.json", run.folder.path(), host.traced_step,
                                      comm.rank()));
  TrainingStep step(config, plan, loaded.state, {comm, trace ? trace->devices() : device}, loaded.position);
  std::optional<HeldOut> held_out;
  if (config.eval.every > 0)
    agree(comm, "preparing the evaluation", [&] {
      held_out.emplace(run.terms, run.data, host);
      if (!host.speaks()) return;
      for (const std::string& line : limits_of_evaluation(held_out->loader, config)) run.log.info(line);
    });
  check_as_planned(host.machine.account(), plan.memory);
  if (!host.machine.is_cpu()) check_as_planned(host.machine.host_account(), plan.host_memory);

  Saver saver({comm, run.folder, run.attempt, run.log, loaded.metrics}, config, plan, loaded.state,
              loaded.snapshot, run.terms.state);
  std::optional<StepReport> report;
  if (loaded.metrics != nullptr)
    report.emplace(config, plan, loaded.peak.flops_per_s, run.attempt, run.data.info(), *loaded.metrics,
                   run.log, comm.pulse());
  TrainingLoop loop({host, run.limit, config, plan, loaded.state, step, loaded.prefetch,
                     held_out ? &held_out->evaluation : nullptr, trace ? &*trace : nullptr, saver,
                     report ? &*report : nullptr, run.log},
                    loaded.position);
  return ending_job_when_alone(comm, [&] {
    const LoopResult result = loop.run();
    tell_end(run.log, run.terms, host, loaded.loader, result);
    agree(comm, "looking at what was trained", [&] { refuse_if_nothing_was_learnt(result, config); });
    return RunResult{result.position, result.position.step < config.train.steps, result.evaluation};
  });
}

// Collective. Takes memory, fills it with what the run goes on from, and goes on.
RunResult load_and_train(const OwnRun& run) {
  const RunHost& host = run.host;
  const Config& config = run.terms.config;
  const RunPlan& plan = run.terms.plan;
  Communicator& comm = host.ranks.host;
  Machine& machine = host.machine;

  Loader loader =
      agree(comm, "opening the data", [&] { return run.data.training(config, machine.host_account()); });
  Prefetch prefetch(micro_batch_fields(config), filler(config, loader), machine.host_account(),
                    prefetch_depth, config.train.micro_batch, machine.device().staging());
  const MatrixPeak peak = measure_matrix_peak(config.run.precision, comm, machine);
  ModelState state = agree(comm, "taking memory", [&] { return ModelState(plan, config, machine); });
  const Buffer snapshot = agree(comm, "taking memory", [&] {
    return Buffer(machine.host_account(), MemoryKind::checkpoint,
                  snapshot_bytes(plan, machine.device().kind()));
  });
  if (host.speaks()) {
    if (!peak.remark.empty()) run.log.warn(peak.remark);
    tell_data(run.log, config, run.data, loader);
  }
  const Position position = resume_or_begin(comm, run.terms, run.folder, run.log, state);
  std::optional<MetricsFile> metrics = write_run(run, position.step);
  return take_steps(run, {loader, prefetch, peak, state, snapshot, position, metrics ? &*metrics : nullptr});
}

}  // namespace

RunResult run_training(const Config& given, const RunHost& host) {
  const TimeLimit limit(given.run.time_limit);
  Communicator& comm = host.ranks.host;

  const RunData data = agree(comm, "opening the data", [&] { return RunData(given); });
  const RunTerms terms = agree_on_terms(for_data(given, data), data, host);
  const RunFolder folder(terms.config.run.dir);
  refuse_what_cannot_go_on(comm, terms, data, folder, host.traced_step);
  const Attempt attempt = begin_attempt(comm, folder, terms.config.run);
  const Log log = open_log(host, folder);
  tell_start(log, terms, host, attempt);
  return load_and_train({host, limit, data, terms, folder, attempt, log});
}

}  // namespace muster
