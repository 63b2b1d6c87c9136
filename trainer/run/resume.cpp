#include "trainer/run/resume.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/model_tensors.hpp"
#include "trainer/checkpoint/save.hpp"
#include "trainer/config/read.hpp"
#include "trainer/step/replicas.hpp"

namespace muster {
namespace {

// The order of samples hangs on the sources and their weights; where their folders lie does not matter.
void refuse_other_data(const std::vector<SourceIdentity>& before, const std::vector<SourceIdentity>& now,
                       const std::string& checkpoint) {
  if (before.size() != now.size())
    throw UserError(
        "{} was trained on {} sources of data, the configuration names {}: keep data.source as it was",
        checkpoint, before.size(), now.size());
  for (std::size_t i = 0; i < now.size(); ++i)
    if (now[i].content != before[i].content || now[i].weight != before[i].weight)
      throw UserError(
          "{} is not the data, or has not the weight, that {} was trained on ({}, weight {}): keep data.path "
          "and data.source as they were, or start a new run in another run.dir",
          now[i].path, checkpoint, before[i].path, before[i].weight);
}

// Nothing where there is no checkpoint to go on from.
std::optional<Position> resume(Communicator& comm, const RunTerms& terms, const RunFolder& folder,
                               const Log& log, ModelState& state) {
  const std::optional<std::int64_t> newest = newest_complete(
      comm, folder.checkpoints(), Trust::full, [&](const std::string& line) { log.warn(line); });
  if (!newest) {
    // What cannot be read today may be tomorrow: starting anew would in time remove it.
    agree(comm, "looking for checkpoints", [&] {
      if (comm.rank() == 0 &&
          std::ranges::any_of(list_checkpoints(folder.checkpoints()), &CheckpointInfo::finished))
        throw UserError(
            "{} holds checkpoints and none can be used (the lines before say why): restore one, or choose "
            "another run.dir to start anew",
            folder.checkpoints());
    });
    return std::nullopt;
  }
  return agree(comm, "loading the checkpoint", [&] {
    const Checkpoint checkpoint =
        Checkpoint::open(checkpoint_path(folder.checkpoints(), *newest), Trust::sizes);
    const RunState saved = state_to_resume(checkpoint, terms.config, terms.state);
    load(checkpoint, terms.plan, state);
    if (comm.rank() == 0) {
      log.info("resuming from {} (step {} of {})", checkpoint.path(), saved.position.step,
               terms.config.train.steps);
      if (saved.fingerprint != terms.state.fingerprint)
        log.warn(
            "this binary, its libraries or this processor differ from those that saved {}: bits may differ",
            checkpoint.path());
    }
    return saved.position;
  });
}

}  // namespace

RunState state_to_resume(const Checkpoint& checkpoint, const Config& config, const RunState& now) {
  RunState saved = run_state_from(checkpoint.state(), checkpoint.path());
  refuse_fixed_changes(parse_resolved_config(saved.config, checkpoint.path()), config);
  if (saved.tokenizer != now.tokenizer)
    throw UserError("{} was trained with another tokenizer than that of {}: give the run its own data",
                    checkpoint.path(), now.sources.front().path);
  refuse_other_data(saved.sources, now.sources, checkpoint.path());
  return saved;
}

void refuse_what_cannot_go_on(Communicator& comm, const RunTerms& terms, const RunData& data,
                              const RunFolder& folder, std::int64_t traced_step) {
  const Config& config = terms.config;
  // A run that lives may save and remove checkpoints meanwhile; resume_or_begin() looks again.
  std::optional<std::int64_t> newest;
  if (!config.run.fresh)
    newest = newest_complete(comm, folder.checkpoints(), Trust::sizes, [](const std::string&) {});
  agree(comm, "comparing with the run", [&] {
    data.refuse_single_tokens(config, Split::train);
    if (config.eval.every > 0) data.refuse_single_tokens(config, Split::validation);
    std::optional<Checkpoint> checkpoint;
    try {
      if (newest) checkpoint = Checkpoint::open(checkpoint_path(folder.checkpoints(), *newest), Trust::sizes);
    } catch (const UserError&) {
      checkpoint.reset();
    }
    std::int64_t step = 0;
    if (checkpoint) step = state_to_resume(*checkpoint, config, terms.state).position.step;
    // Better now than after the first hours.
    if (step < config.train.steps)
      check_room(folder.checkpoints(), checkpoint_bytes(terms.plan), next_attempt,
                 removable_bytes(folder.checkpoints(), config.checkpoint.keep));
    if (config.eval.every > 0 && !data.has_validation(config))
      throw UserError(
          "{} holds out no text as long as train.sequence = {}: prepare it with a larger --validation, or "
          "set "
          "eval.every = 0",
          config.data.sources().front().path, config.train.sequence);
    if (traced_step > config.train.steps)
      throw UserError("--trace step={}: the run ends with step {}: name one of its steps", traced_step,
                      config.train.steps);
  });
}

Position resume_or_begin(Communicator& comm, const RunTerms& terms, const RunFolder& folder, const Log& log,
                         ModelState& state) {
  Position position;
  if (const std::optional<Position> saved = resume(comm, terms, folder, log, state)) {
    position = *saved;
  } else {
    const Pulse::Work work = comm.pulse().work("drawing the first parameters");
    state.initialise(terms.plan, static_cast<std::uint64_t>(terms.config.run.seed));
    if (comm.rank() == 0) log.info("a new run in {}", folder.path());
  }
  check_replicas(state, comm);
  state.refresh_compute({0, terms.plan.parameters().elements()});
  return position;
}

}  // namespace muster
