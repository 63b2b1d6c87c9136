#include "trainer/plan/report.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/text.hpp"

namespace muster {

std::string describe(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<28}{:>14}\n", name, value);
  };
  line("parameters", human_count(static_cast<double>(plan.parameters())));
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
  text +=
      fmt::format("\ngradient spaces: {}; arena: {} for a largest live set of {}\n", plan.gradient_buffers,
                  human_bytes(plan.training.arena_bytes), human_bytes(plan.training.largest_live_bytes));
  return text;
}

std::string describe_json(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes) {
  nlohmann::ordered_json memory;
  for (std::size_t k = 0; k < memory_kinds; ++k) {
    std::string key(name_of(static_cast<MemoryKind>(k)));
    std::replace(key.begin(), key.end(), ' ', '_');
    memory[key + "_bytes"] = plan.memory[k];
  }
  memory["total_bytes"] = plan.total_bytes();
  memory["runtime_bytes"] = runtime_bytes;
  const nlohmann::ordered_json json = {
      {"ranks", plan.ranks},
      {"rank", plan.rank},
      {"parameters", plan.parameters()},
      {"tokens_per_step", config.train.batch * config.train.sequence},
      {"flops_per_step", plan.flops_per_step},
      {"memory", memory},
      {"arena",
       {{"bytes", plan.training.arena_bytes}, {"largest_live_bytes", plan.training.largest_live_bytes}}},
      {"gradient_buffers", plan.gradient_buffers},
      {"communication", {{"bytes_sent_per_step", plan.bytes_sent_per_step}}},
  };
  return json.dump(2);
}

}  // namespace muster
