#include "trainer/commands/evaluate.hpp"

#include <fmt/format.h>

#include "comm/agree.hpp"
#include "core/parallel.hpp"
#include "trainer/commands/all_ranks.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/run/evaluation.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run/trained_model.hpp"

namespace muster {

int evaluate_command(const EvaluateOptions& options) {
  return on_all_ranks([&](Communicator& comm, MemoryAccount& account) {
    Config config =
        agree(comm, "reading the configuration", [&] { return read_config(options.run, options.overrides); });
    take_threads(comm, static_cast<int>(config.run.threads));
    if (!options.data.empty()) {
      config.data.path = options.data;
      config.data.source.clear();
    }
    const RunData data = agree(comm, "opening the data", [&] { return RunData(config); });
    Loader loader = agree(comm, "opening the data", [&] { return data.validation(config, account); });
    const Plan plan =
        make_plan(language_model_evaluation(config.model, micro_batch_shape(config), config.run.precision),
                  cpu_kernels(), thread_count());
    const TrainedModel model = agree(comm, "loading the checkpoint", [&] {
      return TrainedModel(config, options.checkpoint, plan, plan.arena_bytes, account);
    });
    InlineStream compute;
    Evaluation evaluation(config, plan, loader, comm, compute, account);
    const EvaluationResult result = evaluation.run(model.bindings());
    if (comm.rank() == 0) {
      fmt::print("checkpoint       {}\n", model.path());
      fmt::print("targets          {}\n", result.targets);
      fmt::print("loss             {:.6f}\n", result.loss);
      fmt::print("perplexity       {:.4f}\n", result.perplexity());
      fmt::print("bits per byte    {:.4f}\n", result.bits_per_byte(data.info()));
    }
    return 0;
  });
}

}  // namespace muster
