#include "trainer/run/living_attempt.hpp"

#include <cstdio>
#include <fmt/format.h>
#include <optional>
#include <thread>

#include "comm/agree.hpp"
#include "core/error.hpp"

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

}  // namespace muster
