#include "trainer/commands/plan.hpp"

#include <fmt/format.h>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "trainer/plan/host_memory.hpp"
#include "trainer/plan/report.hpp"
#include "trainer/run/run_data.hpp"

namespace muster {

int plan_command(const PlanOptions& options) {
  Config config = read_config(options.config, options.overrides);
  const std::uint64_t runtime = resident_bytes();
  std::uint64_t data_bytes = 0;
  if (!config.data.sources().empty()) {
    data_bytes = RunData(config).memory(config);
  } else if (config.model.vocabulary == 0) {
    throw UserError("neither model.vocabulary nor data.path is given: set one, as --model.vocabulary=50257");
  }
  const int threads = config.run.threads > 0 ? static_cast<int>(config.run.threads) : thread_count();
  const RunPlan plan = make_run_plan(config, options.ranks, 0, threads, data_bytes);
  fmt::print("{}\n", options.json ? describe_json(plan, config, runtime) : describe(plan, config, runtime));
  return 0;
}

}  // namespace muster
