// Communicators of processes, scene by scene: comm_over_mpi SCENE [mpi|staged|nccl]. The scene `behaviours` runs the
// table that all backends share, the others are ways in which a job fails.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "comm/agree.hpp"
#include "comm/mpi/environment.hpp"
#include "comm/nccl.hpp"
#include "comm/staged.hpp"
#include "comm/watchdog.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include "tests/comm/behaviours.hpp"
#include "tests/comm/thread_device.hpp"

namespace muster {
namespace {

void behaviours_hold(Place& place) {
  for (const Behaviour& behaviour : behaviours()) {
    if (behaviour.of_hosts && place.device.kind() != DeviceKind::cpu) continue;
    if (place.comm.rank() == 0) std::printf("%s\n", behaviour.name.c_str());
    behaviour.show(place);
  }
  place.comm.barrier("end").wait();
  if (place.comm.rank() == 0) std::printf("all behaviours hold\n");
}

// Where something else is to end the job, the watchdog's limit is long and its exit code a failure.
void wait_without_rank_1(Place& place, const std::function<void()>& instead, double limit_seconds = 60) {
  const Watchdog watchdog(place.comm, limit_seconds);
  place.comm.pulse().set_step(41);
  std::printf("pid %d\n", getpid());
  std::fflush(stdout);
  const auto losses = place.array(std::vector<float>(3));
  const auto add = [&](const std::string& what) {
    place.comm.all_reduce(losses.bytes(), ReduceType::f32, ReduceOp::sum, what).wait();
  };
  add("start");
  if (place.comm.rank() == 1) instead();
  add("sum of the losses");
}

void hang(Place& place) {
  wait_without_rank_1(
      place, [] { std::this_thread::sleep_for(std::chrono::seconds(60)); }, 1);
}

void killed(Place& place) {
  wait_without_rank_1(place, [] { std::raise(SIGKILL); });
}

// As a debugger does, or a container that is frozen: no thread of the rank runs any more.
void stopped(Place& place) {
  wait_without_rank_1(
      place, [] { std::raise(SIGSTOP); }, 1);
}

void stop_here_if(bool mine) {
  if (mine) std::raise(SIGSTOP);
}

void throw_alone(Place& place) {
  wait_without_rank_1(place, [] { throw std::runtime_error("out of luck"); });
}

void end_by_abort(Place& place) {
  wait_without_rank_1(place, [&] { place.comm.abort(7); });
}

void user_error(Place& place) {
  agree(place.comm, "open data", [&] {
    if (place.comm.rank() > 0) throw UserError("a.h5: no such file, seen by rank {}", place.comm.rank());
  });
}

void wrong_size(Place& place) {
  const auto data = place.array(std::vector<std::byte>(place.comm.rank() == 0 ? 100 : 102));
  place.comm.broadcast(data.span(), 0, "weights").wait();
  std::this_thread::sleep_for(std::chrono::seconds(60));
}

// Whose memory the collectives move. Ranks that stage share a GPU, or, where there is none, have threads for one.
std::unique_ptr<Device> device_of(const std::string& backend, const Communicator& host) {
  if (backend == "mpi") return cpu_device();
  if (backend == "nccl") return cuda_device(host.local_rank() % std::max(1, cuda_device_count()));
  if (cuda_device_count() > 0) return cuda_device(0);
  return std::make_unique<ThreadDevice>();
}

// Null for `host` itself.
std::unique_ptr<Communicator> communicator_of(const std::string& backend, Communicator& host,
                                              const Device& device, MemoryAccount& account, double deadline) {
  if (backend == "nccl") return nccl_communicator(host, device, deadline);
  if (backend == "staged") return staged_communicator(host, device, account, 4 << 20);
  return nullptr;
}

int run(const std::string& scene, const std::string& backend) {
  const std::map<std::string, void (*)(Place&)> scenes = {{"behaviours", behaviours_hold},
                                                          {"hang", hang},
                                                          {"killed", killed},
                                                          {"stopped", stopped},
                                                          {"stopped_at_the_start", behaviours_hold},
                                                          {"stopped_at_the_end", [](Place&) {}},
                                                          {"absent", behaviours_hold},
                                                          {"throw_alone", throw_alone},
                                                          {"leave_by_exception", hang},
                                                          {"abort", end_by_abort},
                                                          {"user_error", user_error},
                                                          {"wrong_size", wrong_size}};
  const char* const launched_as = std::getenv("OMPI_COMM_WORLD_RANK");
  const bool rank_1 = launched_as != nullptr && std::string(launched_as) == "1";
  stop_here_if(rank_1 && scene == "stopped_at_the_start");
  MpiEnvironment environment(scene.starts_with("stopped_at") ? 1 : 0);
  MemoryAccount account;
  const auto host = environment.world(account);
  if (scene == "leave_by_exception" && host->rank() == 1) throw std::runtime_error("not caught in time");
  if (scene == "absent" && host->rank() == 1) setenv("CUDA_ON_HOST_FAIL", "ncclCommInitRankConfig", 1);
  const auto device = device_of(backend, *host);
  try {
    const auto own = communicator_of(backend, *host, *device, account, scene == "absent" ? 1 : 60);
    Place place(own ? *own : *host, *device);
    scenes.at(scene)(place);
    stop_here_if(rank_1 && scene == "stopped_at_the_end");
    return 0;
  } catch (const AgreedError& error) {
    if (is_printed_here(error)) std::fprintf(stderr, "muster: %s\n", error.what());
    return static_cast<int>(ExitCode::user_error);
  } catch (const PeerError& error) {
    // Whoever was lost may have more to say, and ends this rank.
    std::this_thread::sleep_for(std::chrono::seconds(scene == "absent" && host->rank() == 1 ? 60 : 1));
    std::fprintf(stderr, "muster: %s\n", error.what());
    host->abort(static_cast<int>(ExitCode::try_again));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "muster: %s\n", error.what());
    host->abort(static_cast<int>(ExitCode::defect));
  }
  return 1;  // never reached
}

}  // namespace
}  // namespace muster

int main(int count, char** arguments) {
  try {
    if (count < 2) return 2;
    return muster::run(arguments[1], count > 2 ? arguments[2] : "mpi");
  } catch (const std::exception&) {
    return 3;  // the environment has let it pass
  }
}
