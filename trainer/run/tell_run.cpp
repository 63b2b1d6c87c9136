#include "trainer/run/tell_run.hpp"

#include <cstddef>
#include <fmt/format.h>
#include <string>

#include "comm/agree.hpp"
#include "core/instruction_set.hpp"
#include "core/parallel.hpp"
#include "core/text.hpp"
#include "trainer/machine/rank_machine.hpp"
#include "trainer/plan/report.hpp"
#include "trainer/run/data_limits.hpp"

namespace muster {
namespace {

// What this rank computes with, where that is the processor.
std::string describe_cores() {
  const InstructionSet best = instruction_sets_of_processor().back(), used = instruction_set();
  const std::string quota = describe_quota();
  return fmt::format(
      "instruction set {}{}, {} thread{} a rank{}", spelling(used),
      used == best ? "" : fmt::format(" (MUSTER_INSTRUCTION_SET; there is {})", spelling(best)),
      thread_count(), thread_count() == 1 ? "" : "s", quota.empty() ? "" : "; " + quota);
}

}  // namespace

Log open_log(const RunHost& host, const RunFolder& folder) {
  const Ranks& ranks = host.ranks;
  const std::string file = folder.log(ranks.host.rank());
  Log log = agree(ranks.host, "opening the log", [&] { return Log(file, host.console && host.speaks()); });
  ranks.host.pulse().set_log(file);
  if (ranks.devices_apart()) ranks.device.pulse().set_log(file);
  return log;
}

void tell_start(const Log& log, const RunTerms& terms, const RunHost& host, const Attempt& attempt) {
  if (host.machine.is_cpu()) log.info(describe_cores());
  if (!host.speaks()) return;
  if (const auto before = attempt.previous(); before && before->alive)
    log.info("attempt {} (pid {}) still lives; attempt {} takes the run over", before->number, before->pid,
             attempt.number());
  log.info(describe(terms.plan, terms.config, terms.runtime_bytes));
  for (const std::string& remark : remarks(terms.plan.training, host.machine.backend())) log.info(remark);
  if (!host.ranks.joined.empty()) log.info(host.ranks.joined);
}

void tell_data(const Log& log, const Config& config, const RunData& data, const Loader& loader) {
  double weights = 0;
  for (const DataSource& source : config.data.sources()) weights += source.weight;
  const auto wanted = static_cast<double>(config.train.steps * config.train.batch);
  for (std::size_t k = 0; const DataSource& source : config.data.sources()) {
    const auto samples = static_cast<double>(loader.samples(k));
    log.info("data: {}, {} samples of {} tokens, {:.2f} epochs in {} steps", source.path,
             human_count(samples), config.train.sequence, wanted * source.weight / weights / samples,
             config.train.steps);
    log.info("data: {}: {}", source.path, data.describe_checks(k++));
  }
  for (const std::string& line : limits_of_training(loader, config)) log.info(line);
}

void tell_end(const Log& log, const RunTerms& terms, const RunHost& host, const Loader& loader,
              const LoopResult& result) {
  const RunPlan& plan = terms.plan;
  const std::int64_t step = result.position.step, steps = terms.config.train.steps;
  if (plan.ranks > 1 && result.steps_taken > 0)
    log.info("sent {} bytes in a step, planned {}",
             result.sent / static_cast<std::uint64_t>(result.steps_taken), plan.bytes_sent_per_step);
  if (result.merged_documents > 0)
    log.warn(
        "a sample keeps at most {} documents apart: {} more, of this rank, were joined to the one before "
        "them",
        Loader::max_documents(1, loader.options()), result.merged_documents);
  if (!host.speaks()) return;
  for (const std::string& line : result.skipped.summary()) log.warn(line);
  log.info("{} after step {} of {}; memory: planned {} + runtime {}, held {}",
           step < steps ? "stopped" : "done", step, steps, human_bytes(plan.total_bytes()),
           human_bytes(terms.runtime_bytes), human_bytes(host.machine.device().held_bytes()));
}

}  // namespace muster
