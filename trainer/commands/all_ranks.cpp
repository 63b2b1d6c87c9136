#include "trainer/commands/all_ranks.hpp"

#include <algorithm>
#include <exception>
#include <memory>
#include <sched.h>
#include <thread>

#include "comm/mpi/environment.hpp"
#include "trainer/failure.hpp"

namespace muster {

int threads_of_rank(std::int64_t asked, int local_ranks) {
  if (asked > 0) return static_cast<int>(asked);
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const bool known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
  const int mine = known ? CPU_COUNT(&allowed) : cores;
  // A launcher that binds ranks has divided the cores already.
  return std::max(1, mine < cores ? mine : cores / local_ranks);
}

int on_all_ranks(const std::function<int(Communicator&, MemoryAccount&)>& body) {
  std::exception_ptr agreed;
  int code = 0;
  {
    MpiEnvironment mpi;
    MemoryAccount account;
    const std::unique_ptr<Communicator> comm = mpi.world(account);
    try {
      code = body(*comm, account);
    } catch (const std::exception& error) {
      end_job_if_alone(*comm, error);
      agreed = std::current_exception();
    }
  }
  if (agreed) std::rethrow_exception(agreed);
  return code;
}

}  // namespace muster
