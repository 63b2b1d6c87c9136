#include "trainer/commands/evaluate.hpp"

#include <fmt/format.h>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/run/evaluation.hpp"
#include "trainer/run/rank_machine.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run/trained_model.hpp"
#include "trainer/run_folder.hpp"

namespace muster {

int evaluate_command(const EvaluateOptions& options) {
  const auto body = [&](Communicator& comm, MemoryAccount& account) {
    Config config =
        agree(comm, "reading the configuration", [&] { return read_config(options.run, options.overrides); });
    set_thread_count(threads_of_rank(config.run.threads, ranks_on_my_cores(comm)));
    RankMachine rank(config, comm, account);
    Machine& machine = rank.machine();
    const RunData data = agree(comm, "opening the data", [&] { return RunData(config); });
    const Plan plan =
        make_plan(language_model_evaluation(config.model, micro_batch_shape(config), config.run.precision),
                  machine.backend().kernels, thread_count());
    MemoryByKind planned = TrainedModel::memory(config, plan, plan.arena_bytes);
    MemoryByKind on_host{};
    MemoryByKind& host = machine.is_cpu() ? planned : on_host;
    host[static_cast<std::size_t>(MemoryKind::data)] = data.memory(config, Split::validation);
    host[static_cast<std::size_t>(MemoryKind::communication)] = account.now(MemoryKind::communication);
    agree(comm, "planning",
          [&] { refuse_if_too_large(planned, machine.device(), comm.size(), comm.local_size()); });
    Loader loader = agree(comm, "opening the data", [&] { return data.validation(config, account); });
    // All ranks take the same one, also while a training run saves another.
    std::optional<std::int64_t> step = options.checkpoint;
    if (!step)
      step = newest_complete(comm, RunFolder(config.run.dir).checkpoints(), Trust::used,
                             [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
    const TrainedModel model = agree(comm, "loading the checkpoint", [&] {
      TrainedModel loaded(config, step, plan, plan.arena_bytes, machine);
      if (loaded.tokenizer() != data.info().tokenizer)
        throw UserError(
            "{} was trained with another tokenizer than that of {}: prepare the text with its own",
            loaded.path(), config.data.sources().front().path);
      return loaded;
    });
    Evaluation evaluation(config, plan, loader, comm, machine);
    check_as_planned(machine.account(), planned);
    const EvaluationResult result = evaluation.run(model.bindings());
    if (comm.rank() == 0) {
      fmt::print("checkpoint       {}\n", model.path());
      fmt::print("targets          {}\n", result.targets);
      fmt::print("loss             {:.6f}\n", result.loss);
      fmt::print("perplexity       {:.4f}\n", result.perplexity());
      if (const auto bits = result.bits_per_byte(data.info())) fmt::print("bits per byte    {:.4f}\n", *bits);
    }
    return 0;
  };
  return on_all_ranks(body, watchdog_of(options.run, options.overrides));
}

}  // namespace muster
