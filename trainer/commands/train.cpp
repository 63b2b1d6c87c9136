#include "trainer/commands/train.hpp"

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/run/signals.hpp"
#include "trainer/run/training_run.hpp"

namespace muster {

int train_command(const TrainOptions& options) {
  watch_stop_signals();
  return on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    const Config config = agree(comm, "reading the configuration",
                                [&] { return read_config(options.config, options.overrides); });
    agree(comm, "choosing the device", [&] {
      if (config.run.device == DeviceChoice::cuda)
        throw UserError(
            "run.device = \"cuda\", but this program was built without CUDA: use \"cpu\" or \"auto\"");
    });
    set_thread_count(threads_of_rank(config.run.threads, comm.local_size()));
    InlineStream compute;
    const RunResult result = run_training(config, {comm, compute, account, stop_requested, true});
    return static_cast<int>(result.interrupted ? ExitCode::interrupted : ExitCode::success);
  });
}

}  // namespace muster
