#include "trainer/commands/train.hpp"

#include <algorithm>
#include <string_view>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "core/text.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/machine/rank_machine.hpp"
#include "trainer/run/signals.hpp"
#include "trainer/run/training_run.hpp"

namespace muster {

namespace {

// Of "step=20": 20.
std::int64_t step_to_trace(const std::string& text) {
  if (text.empty()) return 0;
  constexpr std::string_view prefix = "step=";
  const std::string_view number = std::string_view(text).substr(std::min(prefix.size(), text.size()));
  const auto step = parse_number<std::int64_t>(number);
  if (text.starts_with(prefix) && step && *step >= 1) return *step;
  throw UserError("--trace {} names no step: write --trace step=20", text);
}

}  // namespace

int train_command(const TrainOptions& options) {
  watch_stop_signals();
  const std::int64_t traced_step = step_to_trace(options.trace);
  const auto body = [&](Communicator& comm, MemoryAccount& account) {
    speak_of_stop_signals(comm.rank() == 0);
    const Config config = agree(comm, "reading the configuration",
                                [&] { return read_config(options.config, options.overrides); });
    set_thread_count(threads_of_rank(config.run.threads, ranks_on_my_cores(comm)));
    RankMachine rank(config, comm, account);
    RunHost host{rank.ranks(), rank.machine(), [](std::int64_t) { return stop_requested(); }};
    host.unsaved = set_unsaved_steps;
    host.traced_step = traced_step;
    host.console = true;
    const RunResult result = run_training(config, host);
    return static_cast<int>(result.interrupted ? ExitCode::interrupted : ExitCode::success);
  };
  return on_all_ranks(body, watchdog_of(options.config, options.overrides));
}

}  // namespace muster
