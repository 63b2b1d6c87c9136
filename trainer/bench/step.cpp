#include "trainer/bench/step.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "trainer/bench/measure.hpp"

namespace muster {

StepTable step_table(const RunPlan& run, std::vector<StepSample> samples,
                     const std::vector<SyntheticRun::Timed>& timed) {
  StepTable table;
  table.samples = std::move(samples);
  std::vector<double> seconds, exposed, timed_seconds;
  for (const StepSample& sample : table.samples) {
    seconds.push_back(sample.seconds);
    exposed.push_back(sample.exposed());
  }
  const Plan& plan = run.training;
  std::vector<std::vector<double>> by_step(plan.steps.size());
  for (const SyntheticRun::Timed& sample : timed) {
    timed_seconds.push_back(sample.step.seconds);
    for (std::size_t s = 0; s < by_step.size(); ++s) by_step[s].push_back(sample.plan_seconds[s]);
  }

  table.seconds = median(seconds);
  table.exposed = median(exposed);
  table.timed_seconds = median(timed_seconds);
  const std::int64_t micro_batches = run.own_micro_batches();
  std::map<std::string, OpShare> shares;
  for (std::size_t s = 0; s < by_step.size(); ++s) {
    table.plan_seconds.push_back(median(by_step[s]));
    const Node& node = plan.node(plan.steps[s]);
    OpShare& share = shares[std::string(node.op->name())];
    share.name = node.op->name();
    share.calls += micro_batches;
    share.seconds += static_cast<double>(micro_batches) * table.plan_seconds.back();
  }
  table.rest = table.timed_seconds;
  for (const auto& [name, share] : shares) {
    table.rows.push_back(share);
    table.rest -= share.seconds;
  }
  std::ranges::stable_sort(table.rows, std::greater(), &OpShare::seconds);
  return table;
}

StepTable bench_step(SyntheticRun& run, int steps) {
  run.run(2);  // libraries choose their algorithms, graphs are recorded
  std::vector<StepSample> samples = run.run(steps);
  std::vector<SyntheticRun::Timed> timed;
  for (int i = 0; i < steps; ++i) timed.push_back(run.run_timed());
  return step_table(run.plan(), std::move(samples), timed);
}

}  // namespace muster
