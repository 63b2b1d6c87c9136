#include "trainer/commands/all_ranks.hpp"

#include <exception>
#include <memory>

#include "comm/mpi/environment.hpp"
#include "trainer/failure.hpp"
#include "trainer/launcher.hpp"

namespace muster {

int on_all_ranks(const std::function<int(Communicator&, MemoryAccount&)>& body) {
  std::exception_ptr agreed;
  int code = 0;
  const Launcher launcher;
  {
    MpiEnvironment mpi;
    MemoryAccount account;
    const std::unique_ptr<Communicator> comm = mpi.world(account);
    try {
      launcher.refuse_if_foreign(comm->size());
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
