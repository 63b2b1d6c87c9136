#include "trainer/run/evaluation.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "comm/agree.hpp"
#include "comm/reduction.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/inputs.hpp"

namespace muster {

double EvaluationResult::perplexity() const { return std::exp(loss); }

std::optional<double> EvaluationResult::bits_per_byte(const DatasetInfo& info) const {
  if (info.validation.text_bytes == 0) return std::nullopt;
  return loss / std::log(2.0) * static_cast<double>(info.validation.tokens()) /
         static_cast<double>(info.validation.text_bytes);
}

Evaluation::Evaluation(const Config& config, const Plan& plan, Loader& loader, Communicator& comm,
                       Machine& machine)
    : config_(config),
      executor_(plan, machine.backend()),
      comm_(comm),
      stream_(machine.stream()),
      losses_(machine.take_staging(MemoryKind::data, losses_at_a_time * sizeof(double))),
      prefetch_(loader, machine.host_account(), prefetch_depth, config.train.micro_batch,
                machine.device().staging()),
      windows_(config.eval.windows > 0 ? std::min(config.eval.windows, loader.samples()) : loader.samples()) {
}

EvaluationResult Evaluation::run(const Bindings& bindings) {
  struct Leaf {
    double loss = 0;
    std::int64_t targets = 0;
  };
  const std::int64_t b = config_.train.micro_batch;
  const int leaves = static_cast<int>((windows_ + b - 1) / b);
  std::vector<Leaf> results(static_cast<std::size_t>(leaves));
  const auto part = [&](int rank) {
    const LeafRange range = shards_of_rank(leaves, comm_.size(), rank);
    return std::span(results).subspan(static_cast<std::size_t>(range.begin),
                                      static_cast<std::size_t>(range.end - range.begin));
  };

  agree(comm_, "reading validation data", [&] {
    const LeafRange mine = shards_of_rank(leaves, comm_.size(), comm_.rank());
    const std::span<double> losses = losses_.as<double>().first(losses_at_a_time);
    int collected = mine.begin;
    for (int leaf = mine.begin; leaf < mine.end; ++leaf) prefetch_.request(leaf * b, b);
    for (int leaf = mine.begin; leaf < mine.end; ++leaf) {
      const Batch& batch = prefetch_.next();
      // With eval.windows the last micro-batch may reach beyond what was asked for.
      const std::int64_t wanted = std::min(b, windows_ - leaf * b) * config_.train.sequence;
      std::fill(batch.targets.begin() + wanted, batch.targets.end(), ignored_target);
      Leaf& result = results[static_cast<std::size_t>(leaf)];
      result.targets =
          std::count_if(batch.targets.begin(), batch.targets.end(), [](std::int32_t t) { return t >= 0; });
      fill_inputs(stream_, executor_, bindings, batch, config_.data.documents);
      prefetch_.give_back(stream_.record());
      executor_.run(stream_, bindings, StepScalars{});
      const auto place = static_cast<std::size_t>(leaf - collected);
      stream_.copy(&losses[place], executor_.view("loss", bindings).data, sizeof(double));
      if (leaf + 1 < mine.end && place + 1 < losses.size()) continue;
      stream_.synchronize();
      for (const double loss : losses.first(place + 1))
        results[static_cast<std::size_t>(collected++)].loss = loss;
    }
  });

  std::vector<std::span<std::byte>> pieces;
  for (int rank = 0; rank < comm_.size(); ++rank) pieces.push_back(std::as_writable_bytes(part(rank)));
  comm_.all_gather(pieces, "losses of the evaluation").wait();

  EvaluationResult total;
  std::vector<double> losses;
  for (const Leaf& leaf : results) {
    losses.push_back(leaf.loss);
    total.targets += leaf.targets;
  }
  agree(comm_, "evaluating", [&] {
    if (total.targets == 0)
      throw UserError(
          "the {} windows of held-out text hold no target: every document there is a single token; prepare "
          "other text, or set eval.every = 0",
          windows_);
  });
  total.loss = plain_nan(tree_sum(losses) / static_cast<double>(total.targets));
  return total;
}

}  // namespace muster
