#include "trainer/run/fitting_plan.hpp"

#include "comm/agree.hpp"
#include "core/host.hpp"
#include "core/parallel.hpp"
#include "trainer/plan/memory_check.hpp"

namespace muster {

RunPlan fitting_plan(const Config& config, const Ranks& ranks, const Machine& machine,
                     std::uint64_t data_bytes) {
  Communicator& comm = ranks.host;
  return agree(comm, "planning", [&] {
    RunPlan plan = make_run_plan(config, comm.size(), comm.rank(), thread_count(), data_bytes,
                                 machine.device().kind(), ranks.device.sums());
    plan.host_memory[static_cast<std::size_t>(MemoryKind::communication)] += ranks.staging_bytes;
    refuse_if_too_large(plan.memory, machine.device(), comm.size(), comm.local_size());
    if (!machine.is_cpu()) refuse_if_too_large(plan.host_memory, available_host_bytes(), comm.local_size());
    return plan;
  });
}

}  // namespace muster
