#include "trainer/run/begin_attempt.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <thread>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "trainer/checkpoint/folder.hpp"

namespace muster {

void refuse_while_another_lives(Communicator& comm, const RunFolder& folder,
                                std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds pause{100};
  // Looks are counted, not clocks read: so all ranks end in the same one.
  for (auto waited = std::chrono::milliseconds(0);; waited += pause) {
    const std::optional<Attempt::Holder> newest =
        agree(comm, "looking for another attempt", [&] { return Attempt::newest(folder); });
    const bool lives_here = newest && newest->alive;
    if (least_of_ranks(comm, lives_here ? 0 : 1, "whether another attempt lives") > 0) return;
    const bool first = waited.count() == 0;
    agree(comm, "waiting for another attempt", [&] {
      if (!lives_here) return;
      if (waited >= patience)
        throw UserError(
            "attempt {} (host {}, pid {}) still trains in {}: wait for it, end it with kill -USR1 {}, or "
            "take the "
            "run over with --run.takeover, which loses its steps since the last checkpoint",
            newest->number, newest->host, newest->pid, folder.path(), newest->pid);
      if (first && comm.local_rank() == 0)
        fmt::print(stderr, "waiting {:g} s for attempt {} (host {}, pid {}) to end\n",
                   std::chrono::duration<double>(patience).count(), newest->number, newest->host,
                   newest->pid);
    });
    std::this_thread::sleep_for(pause);
  }
}

Attempt begin_attempt(Communicator& comm, const RunFolder& folder, const RunConfig& config) {
  if (!config.takeover) refuse_while_another_lives(comm, folder);
  const std::int64_t mine = agree(comm, "taking the run's folder", [&]() -> std::int64_t {
    if (comm.rank() != 0) return 0;
    const Pulse::Work work = comm.pulse().writing("taking the run's folder");
    if (config.fresh) folder.require_empty();
    folder.create();
    std::int64_t of_checkpoints = 0;
    for (const CheckpointInfo& checkpoint : list_checkpoints(folder.checkpoints()))
      of_checkpoints = std::max(of_checkpoints, checkpoint.attempt);
    return Attempt::begin(folder, of_checkpoints).number();
  });
  const std::string number = gather_strings(comm, std::to_string(mine), "number of the attempt")[0];
  return agree(comm, "finding the run's folder", [&] { return Attempt::join(folder, std::stoll(number)); });
}

}  // namespace muster
