#include "trainer/evaluate/evaluation.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/inputs.hpp"

namespace muster {

namespace {

// Whether any rank was asked to stop, known to all of them at the same round: a small sum under way beside the work,
// which nobody waits for as long as it has work. Without a question to ask there is none.
class StopRounds {
 public:
  StopRounds(Communicator& comm, const std::function<bool()>& stop) : comm_(comm), stop_(stop) {}

  // Whether to stop, as far as is known; begins the next round when the last has ended.
  bool look() {
    if (!stop_ || stopped_ || (begun_ && !ended_.complete())) return stopped_;
    if (begun_) take();
    if (!stopped_) begin(stop_(), false);
    return stopped_;
  }

  // When this rank's work is over: waits until that of all is, and tells whether they stopped before.
  bool finish(bool failed) {
    if (!stop_) return false;
    if (begun_) take();
    while (!stopped_ && !all_over_) {
      begin(failed || stop_(), true);
      take();
    }
    return stopped_;
  }

 private:
  void begin(bool asked, bool over) {
    most_ = {asked ? 1 : 0, over ? 0 : 1};
    ended_ = comm_.all_reduce(std::as_writable_bytes(std::span(most_)), ReduceType::i64, ReduceOp::max,
                              "the evaluation", {});
    begun_ = true;
  }
  void take() {
    ended_.wait();
    begun_ = false;
    stopped_ = most_[0] != 0;
    all_over_ = most_[1] == 0;
  }

  Communicator& comm_;
  const std::function<bool()>& stop_;
  std::array<std::int64_t, 2> most_{};  // of all ranks: asked to stop; still at work
  Event ended_;
  bool begun_ = false, stopped_ = false, all_over_ = false;
};

}  // namespace

double EvaluationResult::perplexity() const { return std::exp(loss); }

std::optional<double> EvaluationResult::bits_per_byte(const DatasetInfo& info,
                                                      const ModelConfig& model) const {
  if (info.validation.text_bytes == 0 || !family_of(model).writes_text) return std::nullopt;
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
      prefetch_(micro_batch_fields(config), filler(config, loader), machine.host_account(), prefetch_depth,
                config.train.micro_batch, machine.device().staging()),
      windows_(config.eval.windows > 0 ? std::min(config.eval.windows, loader.samples()) : loader.samples()) {
}

void Evaluation::compute(const Bindings& bindings, LeafRange mine, std::span<Leaf> results,
                         const std::function<bool()>& go_on) {
  const Pulse::Work work = comm_.pulse().work("evaluating");
  const std::int64_t b = config_.train.micro_batch;
  const std::span<double> losses = losses_.as<double>().first(losses_at_a_time);
  int collected = mine.begin;
  for (int leaf = mine.begin; leaf < mine.end; ++leaf) prefetch_.request(leaf * b);
  for (int leaf = mine.begin; leaf < mine.end && go_on(); ++leaf) {
    const Batch& batch = prefetch_.next();
    results[static_cast<std::size_t>(leaf)].targets = batch.valid_targets;
    fill_inputs(stream_, executor_, bindings, batch);
    prefetch_.give_back(stream_.record());
    executor_.run(stream_, bindings, StepScalars{});
    comm_.pulse().beat();
    const auto place = static_cast<std::size_t>(leaf - collected);
    stream_.copy(&losses[place], executor_.view("loss", bindings).data, sizeof(double));
    if (leaf + 1 < mine.end && place + 1 < losses.size()) continue;
    stream_.synchronize();
    for (const double loss : losses.first(place + 1))
      results[static_cast<std::size_t>(collected++)].loss = loss;
  }
}

EvaluationResult Evaluation::run(const Bindings& bindings, const std::function<bool()>& stop) {
  const int leaves = static_cast<int>((windows_ + config_.train.micro_batch - 1) / config_.train.micro_batch);
  std::vector<Leaf> results(static_cast<std::size_t>(leaves));
  const auto part = [&](int rank) {
    const LeafRange range = shards_of_rank(leaves, comm_.size(), rank);
    return std::span(results).subspan(static_cast<std::size_t>(range.begin),
                                      static_cast<std::size_t>(range.end - range.begin));
  };

  StopRounds rounds(comm_, stop);
  std::exception_ptr failure;
  try {
    compute(bindings, shards_of_rank(leaves, comm_.size(), comm_.rank()), results,
            [&] { return !rounds.look(); });
  } catch (...) {
    failure = std::current_exception();
  }
  const bool stopped = rounds.finish(failure != nullptr);
  agree_on(comm_, "reading validation data", failure);
  if (stopped) return {.stopped = true};

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
