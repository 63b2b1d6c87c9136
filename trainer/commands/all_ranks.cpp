#include "trainer/commands/all_ranks.hpp"

#include <exception>
#include <memory>

#include "comm/mpi/environment.hpp"
#include "comm/watchdog.hpp"
#include "core/error.hpp"
#include "trainer/config/config.hpp"
#include "trainer/failure.hpp"
#include "trainer/launcher.hpp"
#include "trainer/output.hpp"

namespace muster {

int on_all_ranks(const std::function<int(Communicator&, MemoryAccount&)>& body, double watchdog) {
  std::exception_ptr failure;
  int code = 0;
  const Launcher launcher;
  {
    MpiEnvironment mpi(watchdog);
    MemoryAccount account;
    const std::unique_ptr<Communicator> comm = mpi.world(account);
    Watchdog watching(*comm, watchdog);
    const auto part = [&](const std::function<void()>& work) {
      try {
        work();
      } catch (const std::exception& error) {
        end_job_if_alone(*comm, error);
        if (failure) return;
        failure = std::current_exception();
        // Before the end of MPI: once a rank has gone, launchers end the others.
        if (!lost_output()) failure = std::make_exception_ptr(Told(report_failure(error)));
      }
    };
    part([&] {
      launcher.refuse_if_foreign(comm->size());
      code = body(*comm, account);
    });
    mpi.tell_last_words_to(comm->pulse().log());
    part([&] { watching.leave(); });
  }
  if (failure) std::rethrow_exception(failure);
  return code;
}

double watchdog_of(const std::string& config, const std::vector<Override>& overrides) {
  const double usual = RunConfig{}.watchdog;
  const Deadline deadline("reading the configuration", usual);
  try {
    return read_config(config, overrides).run.watchdog;
  } catch (const UserError&) {
    return usual;
  }
}

}  // namespace muster
