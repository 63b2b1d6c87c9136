// A run plan told to people, and to scripts.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/plan/run_plan.hpp"

namespace muster {

// A table: memory by kind, `runtime` (what libraries take by themselves, measured), parameters, FLOPs,
// communication.
std::string describe(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes);

// JSON: parameters, flops_per_step, tokens_per_step, memory.KIND_bytes, memory.total_bytes,
// memory.runtime_bytes, arena.bytes, arena.largest_live_bytes, communication.bytes_sent_per_step,
// gradient_buffers, ranks.
std::string describe_json(const RunPlan& plan, const Config& config, std::uint64_t runtime_bytes);

}  // namespace muster
