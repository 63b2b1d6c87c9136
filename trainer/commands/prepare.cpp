#include "trainer/commands/prepare.hpp"

#include <chrono>
#include <fmt/format.h>

#include "core/text.hpp"

namespace muster {
namespace {

using Clock = std::chrono::steady_clock;

void print_split(const char* name, const SplitInfo& split) {
  fmt::print("{:<10}  {:>9} documents  {:>9} tokens  {} shard{}\n", name,
             human_count(static_cast<double>(split.documents())),
             human_count(static_cast<double>(split.tokens())), split.shards.size(),
             split.shards.size() == 1 ? "" : "s");
}

}  // namespace

int prepare_command(const PrepareCommandOptions& options) {
  constexpr auto pause = std::chrono::seconds(2);
  Clock::time_point next = Clock::now() + pause;
  const auto show = [&](const PrepareProgress& progress) {
    if (Clock::now() < next) return;
    next = Clock::now() + pause;
    fmt::print("{} of {} read, {} documents, {} tokens\n", human_bytes(progress.bytes),
               human_bytes(progress.total_bytes), human_count(static_cast<double>(progress.documents)),
               human_count(static_cast<double>(progress.tokens)));
    std::fflush(stdout);
  };
  PrepareOptions how = options.prepare;
  how.tell = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  const DatasetInfo dataset = prepare(options.inputs, options.output, how, show);
  fmt::print("{}: vocabulary {}\n", options.output, dataset.vocabulary);
  print_split("train", dataset.train);
  print_split("validation", dataset.validation);
  if (dataset.validation.shards.empty() && options.prepare.validation > 0)
    fmt::print(
        stderr,
        "nothing is held out to evaluate on: of {} documents none fell into the share of {}; name what "
        "to hold out by --validation-input\n",
        dataset.train.documents(), options.prepare.validation);
  return 0;
}

}  // namespace muster
