#include "trainer/machine/rank_machine.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "comm/agree.hpp"
#include "comm/nccl.hpp"
#include "comm/staged.hpp"
#include "core/device.hpp"
#include "core/host.hpp"
#include "core/topology.hpp"
#include "trainer/plan/ownership.hpp"

namespace muster {
namespace {

// Seconds until ranks that have not met in NCCL are given up. A rank may come as late to a first collective, which holds
// those that wait for it, as to any other: so long that the watchdog, which knows more to tell, speaks first.
double meeting_deadline(double watchdog) {
  constexpr double slack = 120;
  return watchdog > 0 ? watchdog + slack : std::numeric_limits<double>::infinity();
}

// What is sent and what comes in the largest exchange of a bucket of gradients, whose pieces differ by a block.
std::uint64_t largest_exchange(int ranks) {
  return 2 * static_cast<std::uint64_t>(bucket_elements + ranks * flat_block) * sizeof(float);
}

// NCCL joins ranks that do not share a GPU, which it tells by the host, or what NCCL_HOSTID calls it, and the GPU's place
// there. (Batch systems may show each rank its own GPU only, so that all of them call it the first.)
bool drive_different_gpus(Communicator& comm, const Device& device) {
  const char* const host = std::getenv("NCCL_HOSTID");
  std::vector<std::string> all =
      gather_strings(comm, (host != nullptr ? host : host_identity()) + " " + device.pci_bus_id(),
                     "places of the ranks' GPUs");
  std::ranges::sort(all);
  return std::ranges::adjacent_find(all) == all.end();
}

// Next to its GPU, where the launcher has not placed the ranks itself.
void bind_near_gpu(Communicator& comm, const Device& device) {
  Locality mine;
  mine.allowed = allowed_cpus();
  if (const auto place = place_of_gpu(device.pci_bus_id())) {
    mine.near = place->cpus;
    mine.node = place->node;
  }
  const std::string host = host_identity();
  const std::string bytes(reinterpret_cast<const char*>(&mine), sizeof mine);
  std::vector<Locality> of_host;
  std::size_t place = 0;
  const std::vector<std::string> all = gather_strings(comm, bytes + host, "cores next to the ranks' GPUs");
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].substr(sizeof mine) != host) continue;
    if (rank == static_cast<std::size_t>(comm.rank())) place = of_host.size();
    std::memcpy(&of_host.emplace_back(), all[rank].data(), sizeof mine);
  }
  bind_process(cpus_of_rank(of_host, place));
  if (mine.node >= 0) prefer_memory_of(mine.node);
}

}  // namespace

RanksBeside ranks_on_my_cores(Communicator& comm) {
  const auto like_me = [&](const std::string& what, const char* told) {
    const std::string mine = what + " " + host_identity();
    return static_cast<int>(std::ranges::count(gather_strings(comm, mine, told), mine));
  };
  RanksBeside ranks(like_me(cpu_list(allowed_cpus()), "cores of the ranks"));
  ranks.in_group = like_me(cpu_quota().group, "control groups of the ranks");
  return ranks;
}

int threads_of_rank(std::int64_t asked, RanksBeside ranks, const CpuQuota& quota) {
  if (asked > 0) return static_cast<int>(asked);
  const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int allowed = static_cast<int>(allowed_cpus().count());
  const int cores = (allowed > 0 ? allowed : all) / ranks.on_cores;
  const double granted = std::ceil(quota.cpus) / ranks.in_group;
  return std::max(1, granted < cores ? static_cast<int>(granted) : cores);
}

std::string describe_quota(const CpuQuota& quota) {
  const auto allowed = static_cast<double>(allowed_cpus().count());
  if (!(quota.cpus < allowed)) return "";
  return fmt::format("the control group {} grants {:.4g} of {} cores", quota.group, quota.cpus, allowed);
}

std::unique_ptr<Machine> single_machine(const Config& config, MemoryAccount& account) {
  const bool cuda = config.run.device == DeviceChoice::cuda ||
                    (config.run.device == DeviceChoice::automatic && cuda_device_count() > 0);
  return std::make_unique<Machine>(cuda ? cuda_device(0) : cpu_device(), account);
}

RankMachine::RankMachine(const Config& config, Communicator& comm, MemoryAccount& account) : comm_(comm) {
  const int gpus = config.run.device == DeviceChoice::cpu ? 0 : cuda_device_count();
  const bool all_have_one = least_of_ranks(comm, gpus, "GPUs of the ranks") > 0;
  const bool cuda = config.run.device == DeviceChoice::cuda ||
                    (config.run.device == DeviceChoice::automatic && all_have_one);
  if (!cuda) {
    machine_ = std::make_unique<Machine>(cpu_device(), account);
    return;
  }
  agree(comm, "choosing the device", [&] {
    machine_ = std::make_unique<Machine>(cuda_device(gpus > 0 ? comm.local_rank() % gpus : 0), account);
  });
  bind_near_gpu(comm, machine_->device());
  if (comm.size() == 1) return;
  const std::uint64_t before = account.now(MemoryKind::communication);
  if (drive_different_gpus(comm, machine_->device())) {
    device_comm_ = nccl_communicator(comm, machine_->device(), meeting_deadline(config.run.watchdog));
    joined_ = "the GPUs are joined by NCCL";
  } else {
    device_comm_ = staged_communicator(comm, machine_->device(), account, largest_exchange(comm.size()));
    joined_ = "ranks share a GPU: they are joined through the memory of their hosts, which is slow";
  }
  staging_bytes_ = account.now(MemoryKind::communication) - before;
}

}  // namespace muster
