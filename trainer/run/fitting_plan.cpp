#include "trainer/run/fitting_plan.hpp"

#include "comm/agree.hpp"
#include "core/host.hpp"
#include "core/parallel.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/plan/remedies.hpp"

namespace muster {

RunPlan fitting_plan(const Config& config, const Ranks& ranks, const Machine& machine,
                     std::uint64_t data_bytes) {
  Communicator& comm = ranks.host;
  return agree(comm, "planning", [&] {
    const auto plan_of = [&](const Start& start, int rank) {
      RunPlan plan = make_run_plan(for_ranks(start.config, start.ranks), start.ranks, rank, thread_count(),
                                   data_bytes, machine.device().kind(), ranks.device.sums());
      plan.host_memory[static_cast<std::size_t>(MemoryKind::communication)] += ranks.staging_bytes;
      return plan;
    };
    const auto on_device = [&](const Start& start) {
      return demand_on(machine.device(), plan_of(start, 0).memory, start.ranks, start.local_ranks);
    };
    const auto on_host = [&](const Start& start) {
      return demand_on_host(plan_of(start, 0).host_memory, available_host_bytes(), start.local_ranks);
    };
    const Start start{config, comm.size(), comm.local_size()};
    RunPlan plan = plan_of(start, comm.rank());
    refuse_if_too_large(demand_on(machine.device(), plan.memory, comm.size(), comm.local_size()),
                        [&] { return remedies(start, on_device, machine.is_cpu()); });
    if (!machine.is_cpu())
      refuse_if_too_large(demand_on_host(plan.host_memory, available_host_bytes(), comm.local_size()),
                          [&] { return remedies(start, on_host, true); });
    return plan;
  });
}

}  // namespace muster
