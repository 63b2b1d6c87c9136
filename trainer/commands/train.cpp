#include "trainer/commands/train.hpp"

#include "comm/agree.hpp"
#include "core/parallel.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/run/rank_machine.hpp"
#include "trainer/run/signals.hpp"
#include "trainer/run/training_run.hpp"

namespace muster {

int train_command(const TrainOptions& options) {
  watch_stop_signals();
  return on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    const Config config = agree(comm, "reading the configuration",
                                [&] { return read_config(options.config, options.overrides); });
    set_thread_count(threads_of_rank(config.run.threads, comm.local_size()));
    RankMachine rank(config, comm, account);
    const RunResult result = run_training(config, {rank.ranks(), rank.machine(), stop_requested, true});
    return static_cast<int>(result.interrupted ? ExitCode::interrupted : ExitCode::success);
  });
}

}  // namespace muster
