#include "trainer/run/resume.hpp"

#include <string>
#include <vector>

#include "core/error.hpp"
#include "trainer/config/read.hpp"

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

}  // namespace

RunState state_to_resume(const Checkpoint& checkpoint, const Config& config, const RunData& data) {
  RunState saved = run_state_from(checkpoint.state(), checkpoint.path());
  refuse_fixed_changes(parse_resolved_config(saved.config, checkpoint.path()), config);
  if (saved.tokenizer != data.info().tokenizer)
    throw UserError("{} was trained with another tokenizer than that of {}: give the run its own data",
                    checkpoint.path(), config.data.sources().front().path);
  refuse_other_data(saved.sources, data.identities(config), checkpoint.path());
  return saved;
}

}  // namespace muster
