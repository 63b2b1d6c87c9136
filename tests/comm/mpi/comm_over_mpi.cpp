// The communicator over MPI, scene by scene: `behaviours` runs the table that all backends share, the others
// are ways in which a job fails.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "comm/agree.hpp"
#include "comm/mpi/environment.hpp"
#include "comm/watchdog.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include "tests/comm/behaviours.hpp"

namespace muster {
namespace {

void behaviours_hold(Communicator& comm) {
  for (const Behaviour& behaviour : behaviours()) {
    if (comm.rank() == 0) std::printf("%s\n", behaviour.name.c_str());
    behaviour.show(comm);
  }
  comm.barrier("end").wait();
  if (comm.rank() == 0) std::printf("all behaviours hold\n");
}

// Where something else is to end the job, the watchdog's limit is long and its exit code a failure.
void wait_without_rank_1(Communicator& comm, const std::function<void()>& instead,
                         double limit_seconds = 60) {
  Watchdog watchdog(comm, limit_seconds);
  watchdog.set_step(41);
  std::printf("pid %d\n", getpid());
  std::fflush(stdout);
  comm.barrier("start").wait();
  if (comm.rank() == 1) instead();
  comm.barrier("sum of the losses").wait();
}

void hang(Communicator& comm) {
  wait_without_rank_1(
      comm, [] { std::this_thread::sleep_for(std::chrono::seconds(60)); }, 1);
}

void killed(Communicator& comm) {
  wait_without_rank_1(comm, [] { std::raise(SIGKILL); });
}

void throw_alone(Communicator& comm) {
  wait_without_rank_1(comm, [] { throw std::runtime_error("out of luck"); });
}

void end_by_abort(Communicator& comm) {
  wait_without_rank_1(comm, [&] { comm.abort(7); });
}

void user_error(Communicator& comm) {
  agree(comm, "open data", [&] {
    if (comm.rank() > 0) throw UserError("a.h5: no such file, seen by rank {}", comm.rank());
  });
}

void wrong_size(Communicator& comm) {
  std::vector<std::byte> data(comm.rank() == 0 ? 100 : 102);
  comm.broadcast(data, 0, "weights").wait();
  std::this_thread::sleep_for(std::chrono::seconds(60));
}

int run(const std::string& scene) {
  const std::map<std::string, void (*)(Communicator&)> scenes = {{"behaviours", behaviours_hold},
                                                                 {"hang", hang},
                                                                 {"killed", killed},
                                                                 {"throw_alone", throw_alone},
                                                                 {"leave_by_exception", hang},
                                                                 {"abort", end_by_abort},
                                                                 {"user_error", user_error},
                                                                 {"wrong_size", wrong_size}};
  MpiEnvironment environment;
  MemoryAccount account;
  const auto comm = environment.world(account);
  if (scene == "leave_by_exception" && comm->rank() == 1) throw std::runtime_error("not caught in time");
  try {
    scenes.at(scene)(*comm);
    return 0;
  } catch (const AgreedError& error) {
    if (is_printed_here(error)) std::fprintf(stderr, "muster: %s\n", error.what());
    return static_cast<int>(ExitCode::user_error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "muster: %s\n", error.what());
    comm->abort(static_cast<int>(ExitCode::defect));
    return 1;
  }
}

}  // namespace
}  // namespace muster

int main(int, char** arguments) {
  try {
    return muster::run(arguments[1] == nullptr ? "" : arguments[1]);
  } catch (const std::exception&) {
    return 3;  // the environment has let it pass
  }
}
