// Whether a plan fits the memory of this host and of its devices, and whether a process keeps to it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "core/device.hpp"
#include "core/memory.hpp"
#include "trainer/plan/devices.hpp"

namespace muster {

// Bytes by kind, as a MemoryAccount counts them.
using MemoryByKind = std::array<std::uint64_t, memory_kinds>;

std::uint64_t total_of(const MemoryByKind& bytes);

// What a rank is to take, and what there is for it.
struct Demand {
  MemoryByKind planned{};
  std::uint64_t runtime_bytes = 0;  // of the libraries, beside the plan
  std::uint64_t available = 0;
  std::string there;  // "this host leaves 3.2 GiB to each of its 2 ranks"

  std::uint64_t needed() const { return total_of(planned) + runtime_bytes; }
  bool fits() const { return needed() <= available; }
};

// Of one of the ranks that share `available` bytes of a host.
Demand demand_on_host(const MemoryByKind& planned, std::uint64_t available, int local_ranks);
// Of one of `ranks` on its device. A GPU is to have left, too, what its libraries take as they are first used
// (gpu_runtime_bytes); some of that may be taken already, so this errs to the safe side.
Demand demand_on(const Device& device, const MemoryByKind& planned, int ranks, int local_ranks);
// The same on a device that may be elsewhere; its libraries take `runtime_bytes`.
Demand demand_on(const DeviceModel& device, const MemoryByKind& planned, std::uint64_t runtime_bytes);

// Throws UserError, with the largest kind and the remedy, when it does not fit.
void refuse_if_too_large(const Demand& demand, const std::function<std::string()>& remedy);

// Throws Defect unless the account holds, kind by kind, exactly what was planned.
void check_as_planned(const MemoryAccount& account, const MemoryByKind& planned);

}  // namespace muster
