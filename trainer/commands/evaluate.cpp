#include "trainer/commands/evaluate.hpp"

#include <fmt/format.h>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/families/family.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/trained_model.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/evaluate/evaluation.hpp"
#include "trainer/machine/rank_machine.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/plan/remedies.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/run/data_limits.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run_folder.hpp"

namespace muster {

namespace {

Plan plan_of(const Config& config, const Machine& machine) {
  const std::unique_ptr<Model> model = make_model(config.model);
  return make_plan(model->evaluation(micro_batch_shape(config), config.run.precision),
                   machine.backend().kernels, thread_count());
}

// Of the device; on CPUs all there is.
MemoryByKind memory_of(const Config& config, const Plan& plan, const RunData& data, const Machine& machine,
                       std::uint64_t communication) {
  MemoryByKind memory = TrainedModel::memory(config, *plan.graph.space, plan.arena_bytes);
  if (!machine.is_cpu()) return memory;
  memory[static_cast<std::size_t>(MemoryKind::data)] = data.memory(config, Split::validation);
  memory[static_cast<std::size_t>(MemoryKind::communication)] = communication;
  return memory;
}

}  // namespace

int evaluate_command(const EvaluateOptions& options) {
  const auto body = [&](Communicator& comm, MemoryAccount& account) {
    const Config told = agree(comm, "reading the configuration",
                              // As one rank would: the result is that of any number.
                              [&] { return for_ranks(read_config(options.run, options.overrides), 1); });
    set_thread_count(threads_of_rank(told.run.threads, ranks_on_my_cores(comm)));
    RankMachine rank(told, comm, account);
    Machine& machine = rank.machine();
    const RunData data = agree(comm, "opening the data", [&] { return RunData(told); });
    const Config config = for_data(told, data);
    const Plan plan = plan_of(config, machine);
    const std::uint64_t communication = account.now(MemoryKind::communication);
    const MemoryByKind planned = memory_of(config, plan, data, machine, communication);
    agree(comm, "planning", [&] {
      refuse_if_too_large(demand_on(machine.device(), planned, comm.size(), comm.local_size()), [&] {
        Start start{config, comm.size(), comm.local_size()};
        start.config.train.reduction = Reduction::fast;  // any micro-batch will do
        const auto demand = [&](const Start& other) {
          if (other.config.run.precision != config.run.precision)
            throw UserError("an evaluation computes as its run did");
          const MemoryByKind memory =
              memory_of(other.config, plan_of(other.config, machine), data, machine, communication);
          return demand_on(machine.device(), memory, other.ranks, other.local_ranks);
        };
        return remedies(start, demand, machine.is_cpu());
      });
    });
    Loader loader = agree(comm, "opening the data", [&] { return data.validation(config, account); });
    agree(comm, "looking at the data", [&] {
      data.refuse_single_tokens(config, Split::validation);
      if (comm.rank() != 0) return;
      for (const std::string& line : limits_of_evaluation(loader, config)) fmt::print(stderr, "{}\n", line);
    });
    // All ranks take the same one, also while a training run saves another.
    const auto newest = [&] {
      return newest_complete(comm, RunFolder(config.run.dir).checkpoints(), Trust::used,
                             [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
    };
    const auto load = [&](std::optional<std::int64_t> step) {
      return agree(comm, "loading the checkpoint",
                   [&] { return TrainedModel(config, step, *plan.graph.space, plan.arena_bytes, machine); });
    };
    const TrainedModel model = load_asked_or_newest(options.checkpoint, newest, load);
    agree(comm, "comparing the tokenizers", [&] {
      if (model.tokenizer() != data.info().tokenizer)
        throw UserError(
            "{} was trained with another tokenizer than that of {}: prepare the text with its own",
            model.path(), config.data.sources().front().path);
    });
    Evaluation evaluation(config, plan, loader, comm, machine);
    check_as_planned(machine.account(), planned);
    const EvaluationResult result = evaluation.run(model.bindings());
    if (comm.rank() == 0) {
      fmt::print("checkpoint       {}\n", model.path());
      fmt::print("targets          {}\n", result.targets);
      fmt::print("loss             {:.6f}\n", result.loss);
      fmt::print("perplexity       {:.4f}\n", result.perplexity());
      if (const auto bits = result.bits_per_byte(data.info(), config.model))
        fmt::print("bits per byte    {:.4f}\n", *bits);
    }
    return 0;
  };
  return on_all_ranks(body, watchdog_of(options.run, options.overrides));
}

}  // namespace muster
