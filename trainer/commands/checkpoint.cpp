#include "trainer/commands/checkpoint.hpp"

#include <fmt/format.h>
#include <vector>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/text.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/load.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

std::vector<CheckpointInfo> checkpoints_of(const std::string& run) {
  const RunFolder folder(run);
  folder.require_run();
  return list_checkpoints(folder.checkpoints());
}

}  // namespace

int checkpoint_list_command(const std::string& run) {
  const auto found = checkpoints_of(run);
  if (found.empty()) {
    fmt::print("{} has no checkpoints yet\n", run);
    return 0;
  }
  fmt::print("{:>8}  {:>7}  {:>5}  {:>10}  {:<20}  state\n", "step", "attempt", "files", "size", "saved");
  for (const CheckpointInfo& info : found) {
    fmt::print("{:>8}  {:>7}  {:>5}  {:>10}  {:<20}  {}\n", info.step, info.attempt, info.files,
               human_bytes(info.bytes), info.saved, info.complete ? "complete" : info.problem);
  }
  return 0;
}

int checkpoint_verify_command(const std::string& run, std::optional<std::int64_t> step) {
  int seen = 0;
  std::vector<std::string> problems;
  for (const CheckpointInfo& info : checkpoints_of(run)) {
    if (!info.finished || (step && info.step != *step)) continue;  // what is being written is nobody's fault
    ++seen;
    const auto found = verify_checkpoint(info.path, Trust::full);
    if (found.empty())
      fmt::print("{}: intact, {} in {} files, values {}\n", info.path, human_bytes(info.bytes), info.files,
                 hex(Checkpoint::open(info.path, Trust::sizes).hash()));
    else
      fmt::print("{}: damaged: {}\n", info.path, fmt::join(found, "; "));
    problems.insert(problems.end(), found.begin(), found.end());
  }
  if (seen == 0 && step)
    throw UserError("{} has no checkpoint of step {}; muster checkpoint list {} shows those it has", run,
                    *step, run);
  if (!problems.empty())
    throw UserError("{}{}; train goes on from the newest intact checkpoint", problems.front(),
                    problems.size() > 1 ? fmt::format(" (and {} more faults)", problems.size() - 1) : "");
  if (seen == 0) fmt::print("{} has no complete checkpoint yet\n", run);
  return 0;
}

}  // namespace muster
