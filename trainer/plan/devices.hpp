// Devices as a prediction takes them: what their data sheets promise, and how much of it is reached.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/device.hpp"
#include "model/graph/precision.hpp"

namespace muster {

// The alpha-beta model of a collective: latency + bytes / bandwidth.
struct Link {
  double latency = 0;    // seconds of a collective without bytes
  double bandwidth = 0;  // bytes/s, reached, that a rank sends (and receives) while all ranks do
};

// A device at one precision.
struct DeviceModel {
  std::string name;
  DeviceKind kind = DeviceKind::cpu;
  std::uint64_t memory_bytes = 0;  // what a process finds
  std::uint64_t cache_bytes = 0;   // of the last level
  double peak = 0;                 // FLOP/s of the data sheet, dense: what mfu divides by; 0: there is none
  // Reached, FLOP/s as Op::cost counts them.
  double product_rate = 0;
  double attention_rate = 0;
  double attention_gradient_rate = 0;
  double bandwidth = 0;  // reached by a copy, bytes/s read and written
  double launch = 0;     // seconds between two kernels
  Link within_node, between_nodes;
  // Every core of a node computes: what passes between its ranks is copied by the same cores.
  bool busy_cores = false;
  bool ring = false;  // all_gather passes pieces on (NCCL); else every rank sends its own to all others
};

// What CUDA's context and the libraries take of a GPU by themselves, some of it in the first steps only: an allowance for
// one of `ranks`.
std::uint64_t gpu_runtime_bytes(int ranks);

// "a100", "h100", "h200", "b200": the SXM modules.
std::vector<std::string> gpu_names();
// Throws UserError, with the nearest name, for one that is not in the table.
DeviceModel gpu_model(std::string_view name, Precision precision);
// The model of a GPU by the name that it gives itself ("NVIDIA H200"); none for one that is not in the table.
std::optional<DeviceModel> model_of_gpu(std::string_view device_name, Precision precision);

// This host, as one of the ranks that share it finds it: `matrix_peak` FLOP/s (trainer/machine/matrix_peak.hpp), of which
// products reach a share, and `bandwidth` of a copy are measured at start.
DeviceModel cpu_model(double matrix_peak, double bandwidth, std::uint64_t memory_bytes, bool busy_cores);

}  // namespace muster
