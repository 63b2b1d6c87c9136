#include "trainer/commands/plan.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <vector>

#include "core/error.hpp"
#include "core/host.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/plan/host_memory.hpp"
#include "trainer/plan/report.hpp"
#include "trainer/run/run_data.hpp"

namespace muster {
namespace {

// A model is planned before its data are prepared.
bool is_prepared(const Config& config) {
  const std::vector<DataSource> sources = config.data.sources();
  return !sources.empty() && std::ranges::all_of(sources, [](const DataSource& source) {
    return std::filesystem::exists(source.path);
  });
}

}  // namespace

int plan_command(const PlanOptions& options) {
  Config config = read_config(options.config, options.overrides);
  const std::uint64_t runtime = resident_bytes();
  std::uint64_t data_bytes = 0;
  if (is_prepared(config)) {
    data_bytes = RunData(config).memory(config);
  } else if (config.model.vocabulary == 0) {
    throw UserError(
        "{}: neither model.vocabulary nor prepared data tell the vocabulary: set one, as "
        "--model.vocabulary=50257",
        options.config);
  } else {
    fmt::print(stderr, "the data are not prepared: the plan leaves out what loading them takes\n");
  }
  // As many threads as a rank would take if all of them ran on this host.
  const int threads = threads_of_rank(config.run.threads, options.ranks);
  const RunPlan plan = make_run_plan(config, options.ranks, 0, threads, data_bytes);
  fmt::print("{}\n", options.json ? describe_json(plan, config, runtime) : describe(plan, config, runtime));
  return 0;
}

}  // namespace muster
