// The machine of a rank as its configuration asks for it, and the communicator that joins the ranks' devices.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "comm/communicator.hpp"
#include "core/host.hpp"
#include "trainer/config/config.hpp"
#include "trainer/step/machine.hpp"
#include "trainer/step/ranks.hpp"

namespace muster {

// The ranks of a host with which this one shares what it computes on, itself among them: all of them, or itself alone where
// a launcher has bound each to cores of its own; and those to which one control group grants processors.
struct RanksBeside {
  int on_cores, in_group;

  RanksBeside(int all) : on_cores(all), in_group(all) {}
};
// Collective.
RanksBeside ranks_on_my_cores(Communicator& comm);

// Threads of a rank: `asked` (run.threads) if not 0, else its share of the cores that it may use, and of what the control
// group grants, in whole cores.
int threads_of_rank(std::int64_t asked, RanksBeside ranks, const CpuQuota& quota = cpu_quota());

// Says so where a control group grants less than the cores that this process may use; empty otherwise.
std::string describe_quota(const CpuQuota& quota = cpu_quota());

// For a process without others: a GPU if run.device allows it and there is one.
std::unique_ptr<Machine> single_machine(const Config& config, MemoryAccount& account);

class RankMachine {
 public:
  // Collective over `comm`. run.device = "auto" takes a GPU where every rank has one; a rank takes the one at
  // its place among the ranks of its host. Throws UserError, the same on all ranks, where "cuda" cannot be.
  RankMachine(const Config& config, Communicator& comm, MemoryAccount& account);

  Machine& machine() { return *machine_; }
  Ranks ranks() { return {comm_, device_comm_ ? *device_comm_ : comm_, staging_bytes_, joined_}; }

 private:
  Communicator& comm_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<Communicator> device_comm_;
  std::uint64_t staging_bytes_ = 0;
  std::string_view joined_;
};

}  // namespace muster
