#include "trainer/plan/report.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/text.hpp"

namespace muster {
namespace {

using nlohmann::ordered_json;

ordered_json memory_json(const MemoryByKind& memory) {
  ordered_json json;
  for (std::size_t k = 0; k < memory_kinds; ++k) {
    std::string key(name_of(static_cast<MemoryKind>(k)));
    std::replace(key.begin(), key.end(), ' ', '_');
    json[key + "_bytes"] = memory[k];
  }
  return json;
}

ordered_json prediction_json(const StepPrediction& step) {
  ordered_json json = {{"step_seconds", step.seconds},
                       {"tokens_per_s", step.tokens_per_s},
                       {"mfu", step.mfu},
                       {"communication_seconds", step.communication},
                       {"exposed_communication_seconds", step.exposed},
                       {"computation", ordered_json::array()}};
  for (const OpShare& share : step.shares)
    json["computation"].push_back({{"op", share.name}, {"calls", share.calls}, {"seconds", share.seconds}});
  return json;
}

std::string milliseconds(double seconds) { return fmt::format("{:.2f} ms", 1e3 * seconds); }

std::string describe_outlook(const RunPlan& plan, std::uint64_t runtime_bytes, const Outlook& outlook) {
  const StepPrediction& step = outlook.step;
  std::string text = fmt::format("\npredicted on {}, {} of {} ranks in a node\n", outlook.device.name,
                                 std::min(plan.ranks, outlook.ranks_per_node), plan.ranks);
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<28}{:>14}\n", name, value);
  };
  const std::uint64_t taken = plan.total_bytes() + runtime_bytes;
  line("  memory of the device", human_bytes(outlook.device.memory_bytes));
  line("  taken", fmt::format("{:.1f}%", 100 * static_cast<double>(taken) /
                                             static_cast<double>(outlook.device.memory_bytes)));
  line("  step", milliseconds(step.seconds));
  line("  tokens/s", human_count(step.tokens_per_s));
  if (step.mfu > 0) line("  mfu", fmt::format("{:.1f}%", 100 * step.mfu));
  line("  communication", milliseconds(step.communication));
  line("  exposed communication", milliseconds(step.exposed));
  text += fmt::format("\n{:<28}{:>14}{:>14}{:>9}\n", "computation of rank 0", "calls", "time", "share");
  double sum = 0;
  for (const OpShare& share : step.shares) sum += share.seconds;
  for (const OpShare& share : step.shares)
    text += fmt::format("  {:<26}{:>14}{:>14}{:>8.1f}%\n", share.name, share.calls,
                        milliseconds(share.seconds), 100 * share.seconds / sum);
  return text;
}

}  // namespace

std::string describe(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes,
                     const Outlook* outlook) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<28}{:>14}\n", name, value);
  };
  line("parameters", human_count(static_cast<double>(plan.parameters().logical_elements())));
  line("sequences a step", std::to_string(config.train.batch));
  line("tokens a step", human_count(static_cast<double>(config.train.batch * config.train.sequence)));
  line("FLOP a step", human_count(plan.flops_per_step));
  line("ranks", std::to_string(plan.ranks));
  line("sent by a rank in a step", human_bytes(plan.bytes_sent_per_step));
  text += fmt::format("\nmemory of rank {}\n", plan.rank);
  for (std::size_t k = 0; k < memory_kinds; ++k)
    if (plan.memory[k] > 0)
      line(fmt::format("  {}", name_of(static_cast<MemoryKind>(k))), human_bytes(plan.memory[k]));
  line("  total", human_bytes(plan.total_bytes()));
  line("  runtime (libraries, code)", human_bytes(runtime_bytes));
  if (plan.host_memory != MemoryByKind{}) text += "\nmemory of its host\n";
  for (std::size_t k = 0; k < memory_kinds; ++k)
    if (plan.host_memory[k] > 0)
      line(fmt::format("  {}", name_of(static_cast<MemoryKind>(k))), human_bytes(plan.host_memory[k]));
  text +=
      fmt::format("\ngradient spaces: {}; arena: {} for a largest live set of {}\n", plan.gradient_buffers,
                  human_bytes(plan.training.arena_bytes), human_bytes(plan.training.largest_live_bytes));
  if (outlook != nullptr) text += describe_outlook(plan, runtime_bytes, *outlook);
  return text;
}

std::string describe_json(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes,
                          const Outlook* outlook) {
  ordered_json memory = memory_json(plan.memory);
  memory["total_bytes"] = plan.total_bytes();
  memory["runtime_bytes"] = runtime_bytes;
  ordered_json json = {
      {"ranks", plan.ranks},
      {"rank", plan.rank},
      {"parameters", plan.parameters().logical_elements()},
      {"tokens_per_step", config.train.batch * config.train.sequence},
      {"flops_per_step", plan.flops_per_step},
      {"memory", memory},
      {"arena",
       {{"bytes", plan.training.arena_bytes}, {"largest_live_bytes", plan.training.largest_live_bytes}}},
      {"gradient_buffers", plan.gradient_buffers},
      {"communication", {{"bytes_sent_per_step", plan.bytes_sent_per_step}}},
  };
  if (plan.host_memory != MemoryByKind{}) json["host_memory"] = memory_json(plan.host_memory);
  if (outlook != nullptr) {
    json["device"] = {{"name", outlook->device.name},
                      {"memory_bytes", outlook->device.memory_bytes},
                      {"ranks_per_node", outlook->ranks_per_node}};
    json["prediction"] = prediction_json(outlook->step);
  }
  return json.dump(2);
}

}  // namespace muster
