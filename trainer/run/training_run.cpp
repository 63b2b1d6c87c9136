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

// Collective. What the folder tells of a run that goes on from `step`; on rank 0 the metrics, open.
std::optional<MetricsFile> write_run(const RunTerms& terms, const RunHost& host, const RunFolder& folder,
                                     const Attempt& attempt, const Log& log, std::int64_t step) {
  Communicator& comm = host.ranks.host;
  const std::vector<std::string> hosts = gather_strings(comm, host_name(), "host names");
  return agree(comm, "writing the run's folder", [&]() -> std::optional<MetricsFile> {
    if (!host.speaks()) return std::nullopt;
    const Pulse::Work work = comm.pulse().writing("writing the run's folder");
    // Reading a checkpoint takes time, in which another attempt may have begun.
    attempt.check_current();
    remove_leftovers(
        folder.checkpoints(), attempt.number(), [&](const std::string& line) { log.warn(line); },
        [&] { comm.pulse().beat(); });
    write_text_atomically(folder.config(), terms.state.config);
    comm.pulse().beat();
    attempt.check_current();
    write_text_atomically(
        folder.description(),
        describe_run(attempt.number(), hosts, host.machine.device().name(), terms.state.fingerprint));
    comm.pulse().beat();
    attempt.check_current();
    MetricsFile metrics(folder.metrics(), step);
    if (!metrics.remark().empty()) log.warn(metrics.remark());
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

}  // namespace

RunResult run_training(const Config& given, const RunHost& host) {
  const TimeLimit limit(given.run.time_limit);
  Communicator& comm = host.ranks.host;
  Machine& machine = host.machine;

  const RunData data = agree(comm, "opening the data", [&] { return RunData(given); });
  const RunTerms terms = agree_on_terms(for_data(given, data), data, host);
  const Config& config = terms.config;
  const RunPlan& plan = terms.plan;
  const RunFolder folder(config.run.dir);
  refuse_what_cannot_go_on(comm, terms, data, folder, host.traced_step);
  const Attempt attempt = begin_attempt(comm, folder, config.run);
  const Log log = open_log(host, folder);
  tell_start(log, terms, host, attempt);

  Loader loader =
      agree(comm, "opening the data", [&] { return data.training(config, machine.host_account()); });
  Prefetch prefetch(loader, machine.host_account(), prefetch_depth, config.train.micro_batch,
                    machine.device().staging());
  const MatrixPeak peak = measure_matrix_peak(config.run.precision, comm, machine);
  ModelState state = agree(comm, "taking memory", [&] { return ModelState(plan, config, machine); });
  const Buffer snapshot = agree(comm, "taking memory", [&] {
    return Buffer(machine.host_account(), MemoryKind::checkpoint,
                  snapshot_bytes(plan, machine.device().kind()));
  });
  if (host.speaks()) {
    if (!peak.remark.empty()) log.warn(peak.remark);
    tell_data(log, config, data, loader);
  }
  const Position position = resume_or_begin(comm, terms, folder, log, state);
  std::optional<MetricsFile> metrics = write_run(terms, host, folder, attempt, log, position.step);

  std::optional<Watchdog> of_devices;
  if (host.ranks.devices_apart()) of_devices.emplace(host.ranks.device, config.run.watchdog);
  std::optional<StepTrace> trace;
  if (host.traced_step > 0)
    trace.emplace(host.ranks.device,
                  fmt::format("{}/trace-step-{}-rank-{}.json", folder.path(), host.traced_step, comm.rank()));
  TrainingStep step(config, plan, state, {comm, trace ? trace->devices() : host.ranks.device}, position);
  std::optional<HeldOut> held_out;
  if (config.eval.every > 0)
    agree(comm, "preparing the evaluation", [&] {
      held_out.emplace(terms, data, host);
      if (!host.speaks()) return;
      for (const std::string& line : limits_of_evaluation(held_out->loader, config)) log.info(line);
    });
  check_as_planned(machine.account(), plan.memory);
  if (!machine.is_cpu()) check_as_planned(machine.host_account(), plan.host_memory);

  Saver saver({comm, folder, attempt, log, metrics ? &*metrics : nullptr}, config, plan, state, snapshot,
              terms.state);
  std::optional<StepReport> report;
  if (metrics)
    report.emplace(config, plan, peak.flops_per_s, attempt, data.info(), *metrics, log, comm.pulse());
  TrainingLoop loop(
      {host, limit, config, plan, state, step, prefetch, held_out ? &held_out->evaluation : nullptr,
       trace ? &*trace : nullptr, saver, report ? &*report : nullptr, log},
      position);
  return ending_job_when_alone(comm, [&] {
    const LoopResult result = loop.run();
    tell_end(log, terms, host, loader, result);
    agree(comm, "looking at what was trained", [&] {
      if (result.steps_taken > 0 && result.position.step == config.train.steps &&
          result.position.updates == 0)
        throw UserError(
            "none of the {} steps changed the model (the lines before say why): start another run.dir, with "
            "other text "
            "or a smaller optimizer.lr",
            result.position.step);
    });
    return RunResult{result.position, result.position.step < config.train.steps, result.evaluation};
  });
}

}  // namespace muster
