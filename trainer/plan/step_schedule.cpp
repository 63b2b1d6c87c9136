#include "trainer/plan/step_schedule.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <utility>

#include "comm/reduction.hpp"
#include "core/error.hpp"
#include "model/update/outcome.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {
namespace {

// What there is to do before each step of the training plan, and behind the last.
struct Cut {
  std::vector<std::size_t> receive;  // buckets of parameters that the step is the first to read
  std::vector<std::size_t> final;    // buckets of gradients that the step before it has finished
};

std::vector<Cut> cuts_of(const RunPlan& run) {
  const Plan& plan = run.training;
  std::vector<std::vector<std::size_t>> buckets_of(plan.graph.parameters.size());
  std::vector<std::int64_t> missing(run.buckets.size());  // gradients that are not final yet
  std::vector<bool> received(run.buckets.size());
  for (std::size_t b = 0; b < run.buckets.size(); ++b)
    for (const Segment& segment : segments(run.parameters(), run.buckets[b].range)) {
      buckets_of[segment.parameter].push_back(b);
      ++missing[b];
    }
  std::vector<Cut> cuts(plan.steps.size() + 1);
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    for (const ValueId input : plan.node(plan.steps[s]).inputs) {
      if (!input || plan.graph[input].role != Role::parameter) continue;
      for (const std::size_t bucket : buckets_of[static_cast<std::size_t>(plan.graph[input].parameter)])
        if (!received[bucket]) {
          received[bucket] = true;
          cuts[s].receive.push_back(bucket);
        }
    }
    for (const std::int32_t parameter : plan.steps[s].final_gradients)
      for (const std::size_t bucket : buckets_of[static_cast<std::size_t>(parameter)])
        if (--missing[bucket] == 0) cuts[s + 1].final.push_back(bucket);
  }
  // What is never received would be updated while it is still gathered, and what is never final would not be sent.
  check(std::ranges::all_of(received, std::identity()), "the parameters of every bucket are read");
  check(std::ranges::all_of(missing, [](std::int64_t left) { return left == 0; }),
        "the gradients of every bucket become final");
  return cuts;
}

class ScheduleBuilder {
 public:
  explicit ScheduleBuilder(const RunPlan& plan)
      : plan_(plan),
        cuts_(cuts_of(plan)),
        leaves_(accumulation_steps(plan.division.leaves, plan.own_leaves().begin, plan.own_leaves().end)),
        others_(static_cast<std::uint64_t>(plan.ranks - 1)) {}

  StepSchedule build() {
    add(entry::ClearReports{});
    for (std::size_t l = 0; l < leaves_.size(); ++l) {
      const LeafRange parts = plan_.division.micro_batches_of(leaves_[l].leaf);
      for (int k = parts.begin; k < parts.end; ++k)
        micro_batch(leaves_[l], k, k > parts.begin, l == 0 && k == parts.begin,
                    l + 1 == leaves_.size() && k + 1 == parts.end);
      // The last leaf's are made bucket by bucket, as these become final.
      if (l + 1 < leaves_.size()) add_spaces(leaves_[l], std::nullopt);
    }
    reduce();
    update();
    return std::move(schedule_);
  }

 private:
  bool several() const { return plan_.ranks > 1; }
  void add(StepEntry entry) { schedule_.entries.push_back(entry); }
  void add_spaces(const LeafStep& leaf, std::optional<std::size_t> bucket) {
    for (const Add& pair : leaf.adds) add(entry::Add{pair.left, pair.right, bucket});
  }
  std::uint64_t piece(std::size_t bucket) const {
    return static_cast<std::uint64_t>(plan_.own_piece(bucket).size());
  }

  // Parameters are received before the step's first forward needs them, gradients leave when its last backward has finished
  // them.
  void micro_batch(const LeafStep& leaf, int number, bool accumulate, bool first, bool last) {
    add(entry::TakeBatch{leaf.leaf, number});
    std::size_t begin = 0;
    for (std::size_t cut = 0; cut < cuts_.size(); ++cut) {
      const bool receives = first && !cuts_[cut].receive.empty(), sends = last && !cuts_[cut].final.empty();
      if (!receives && !sends && cut + 1 < cuts_.size()) continue;
      if (begin < cut) add(entry::RunKernels{leaf.leaf, number, begin, cut, leaf.buffer, accumulate});
      begin = cut;
      if (receives)
        for (const std::size_t bucket : cuts_[cut].receive) add(entry::Receive{bucket});
      if (sends)
        for (const std::size_t bucket : cuts_[cut].final) send(bucket);
    }
    add(entry::Report{leaf.leaf, number});
  }

  // To each owner its piece of every root that this rank has summed.
  void send(std::size_t bucket) {
    order_.push_back(bucket);
    add_spaces(leaves_.back(), bucket);
    const auto roots =
        static_cast<std::uint64_t>(std::count(plan_.root_owner.begin(), plan_.root_owner.end(), plan_.rank));
    const auto whole = static_cast<std::uint64_t>(plan_.buckets[bucket].range.size());
    if (several()) add(entry::Send{bucket, (whole - piece(bucket)) * sizeof(float) * roots});
  }

  void reduce() {
    const auto own_leaves = static_cast<std::uint64_t>(leaves_.size());
    if (several()) add(entry::ShareReports{others_ * own_leaves * sizeof(LeafReport)});
    const int additions = plan_.reduce_scatters ? 0 : static_cast<int>(combine_order(plan_.roots).size());
    std::uint64_t blocks = 0;
    for (const std::size_t bucket : order_) {
      add(entry::FinishSum{bucket, additions});
      add(entry::Squares{bucket});
      blocks += piece(bucket) / flat_block;
    }
    if (several()) add(entry::ShareSquares{others_ * blocks * sizeof(double)});
    add(entry::Decide{});
  }

  // From the beginning of the space: the next forward asks for the first layers first.
  void update() {
    for (std::size_t b = plan_.buckets.size(); b-- > 0;) {
      const std::uint64_t bytes = others_ * piece(b) * sizeof(float);
      if (several() && !plan_.sharded) add(entry::ShareGradients{b, bytes});
      add(entry::Update{b});
      if (several() && plan_.sharded) add(entry::Gather{b, bytes});
    }
  }

  const RunPlan& plan_;
  const std::vector<Cut> cuts_;
  const std::vector<LeafStep> leaves_;
  const std::uint64_t others_;
  std::vector<std::size_t> order_;  // in which buckets become final, the same on every rank
  StepSchedule schedule_;
};

}  // namespace

std::uint64_t StepSchedule::bytes_sent() const {
  std::uint64_t sum = 0;
  for (const StepEntry& entry : entries)
    sum += std::visit(
        [](const auto& e) -> std::uint64_t {
          if constexpr (requires { e.bytes; })
            return e.bytes;
          else
            return 0;
        },
        entry);
  return sum;
}

StepSchedule make_step_schedule(const RunPlan& plan) { return ScheduleBuilder(plan).build(); }

std::string name_of(const StepEntry& entry) {
  return std::visit(
      Overloaded{
          [](const entry::ClearReports&) { return std::string("clear the reports"); },
          [](const entry::TakeBatch& e) { return fmt::format("batch, micro-batch {}", e.micro_batch); },
          [](const entry::RunKernels& e) {
            return fmt::format("kernels {} to {}, micro-batch {}", e.begin, e.end, e.micro_batch);
          },
          [](const entry::Report& e) { return fmt::format("report, micro-batch {}", e.micro_batch); },
          [](const entry::Add& e) { return fmt::format("add gradient space {} to {}", e.right, e.left); },
          [](const entry::Receive& e) { return fmt::format("parameters received, bucket {}", e.bucket); },
          [](const entry::Send& e) { return fmt::format("reduction of gradients, bucket {}", e.bucket); },
          [](const entry::ShareReports&) { return std::string("losses and signals"); },
          [](const entry::FinishSum& e) { return fmt::format("sum of gradients, bucket {}", e.bucket); },
          [](const entry::Squares& e) { return fmt::format("squares of the gradient, bucket {}", e.bucket); },
          [](const entry::ShareSquares&) { return std::string("sums of squares of the gradient"); },
          [](const entry::Decide&) { return std::string("loss, norm and clip factor"); },
          [](const entry::ShareGradients& e) {
            return fmt::format("all_gather of gradients, bucket {}", e.bucket);
          },
          [](const entry::Update& e) { return fmt::format("update, bucket {}", e.bucket); },
          [](const entry::Gather& e) { return fmt::format("all_gather of parameters, bucket {}", e.bucket); },
      },
      entry);
}

}  // namespace muster
