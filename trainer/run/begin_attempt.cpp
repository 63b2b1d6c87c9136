#include "trainer/run/begin_attempt.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "trainer/checkpoint/folder.hpp"

namespace muster {
namespace {

std::string describe(const Attempt::Holder& holder) {
  if (!holder.told) return fmt::format("attempt {} (which has not told yet who it is)", holder.number);
  return fmt::format("attempt {} (host {}, pid {}{})", holder.number, holder.host, holder.pid,
                     holder.here ? "" : " of another container");
}

UserError refusal(const Attempt::Holder& holder, const RunFolder& folder) {
  return UserError(
      "{} still trains in {}: wait for it, end it with kill -USR1 {}{}, or take the run over with "
      "--run.takeover, which loses its steps since the last checkpoint",
      describe(holder), folder.path(), holder.pid, holder.here ? "" : " in that container");
}

}  // namespace

std::int64_t refuse_while_another_lives(Communicator& comm, const RunFolder& folder,
                                        std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds pause{100};
  // Looks are counted, not clocks read: so all ranks end in the same one.
  for (auto waited = std::chrono::milliseconds(0);; waited += pause) {
    const std::optional<Attempt::Holder> newest =
        agree(comm, "looking for another attempt", [&] { return Attempt::newest(folder); });
    const bool lives_here = newest && newest->alive, may_live = newest && !newest->told;
    const double free = least_of_ranks(comm, lives_here || may_live ? 0 : 1, "whether another attempt lives");
    const bool first = waited.count() == 0, last = waited >= patience;
    agree(comm, "waiting for another attempt", [&] {
      if (lives_here && last) throw refusal(*newest, folder);
      if ((lives_here || may_live) && first && comm.local_rank() == 0)
        fmt::print(stderr, "waiting {:g} s for {} to end\n", std::chrono::duration<double>(patience).count(),
                   describe(*newest));
    });
    if (free > 0 || last) return newest ? newest->number : 0;
    std::this_thread::sleep_for(pause);
  }
}

Attempt begin_alone(const RunFolder& folder, std::int64_t newest, std::int64_t of_checkpoints) {
  if (auto attempt = Attempt::begin_after(folder, newest, of_checkpoints)) return std::move(*attempt);
  throw UserError(
      "another start has taken {} at the same moment: let it train, or take the run over with "
      "--run.takeover, which ends it",
      folder.path());
}

Attempt begin_attempt(Communicator& comm, const RunFolder& folder, const RunConfig& config) {
  const std::int64_t newest = config.takeover ? 0 : refuse_while_another_lives(comm, folder);
  auto mine = agree(comm, "taking the run's folder", [&]() -> std::optional<Attempt> {
    if (comm.rank() != 0) return std::nullopt;
    const Pulse::Work work = comm.pulse().writing("taking the run's folder");
    if (config.fresh) folder.require_empty();
    folder.create();
    std::int64_t of_checkpoints = 0;
    for (const CheckpointInfo& checkpoint : list_checkpoints(folder.checkpoints()))
      of_checkpoints = std::max(of_checkpoints, checkpoint.attempt);
    return config.takeover ? Attempt::begin(folder, of_checkpoints)
                           : begin_alone(folder, newest, of_checkpoints);
  });
  const std::string number =
      gather_strings(comm, std::to_string(mine ? mine->number() : 0), "number of the attempt")[0];
  return agree(comm, "finding the run's folder",
               [&] { return mine ? std::move(*mine) : Attempt::join(folder, std::stoll(number)); });
}

}  // namespace muster
