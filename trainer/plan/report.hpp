// A run plan told to people, and to scripts.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/plan/cost.hpp"
#include "trainer/plan/devices.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {

// What a run would be like on a device that may be elsewhere.
struct Outlook {
  DeviceModel device;
  int ranks_per_node = 1;
  StepPrediction step;
};

// A table: memory by kind, `runtime` (what libraries take by themselves: measured, or the allowance for a GPU that is elsewhere),
// parameters, FLOPs, communication; with an outlook, the predicted step.
std::string describe(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes,
                     const Outlook* outlook = nullptr);

// JSON: parameters, flops_per_step, tokens_per_step, memory.KIND_bytes, memory.total_bytes,
// memory.runtime_bytes, host_memory likewise beside a GPU's, arena.bytes, arena.largest_live_bytes,
// communication.bytes_sent_per_step, gradient_buffers, ranks. With an outlook: device.name, device.memory_bytes,
// device.ranks_per_node, prediction.step_seconds, .tokens_per_s, .mfu, .communication_seconds,
// .exposed_communication_seconds, .computation (a list of op, calls, seconds). With `steps` the lines of describe_steps as
// steps.
std::string describe_json(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes,
                          const Outlook* outlook = nullptr, bool steps = false);

}  // namespace muster
