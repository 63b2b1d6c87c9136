#include "trainer/plan/cost.hpp"

#include <map>
#include <optional>

#include "comm/reduction.hpp"
#include "model/ops/cross_entropy.hpp"

namespace muster {
namespace {

double rate_of(const DeviceModel& device, std::string_view op) {
  if (op == "attention") return device.attention_rate;
  if (op == "attention_gradient") return device.attention_gradient_rate;
  return device.product_rate;
}

// The head's logits, a chunk at a time, are larger than a GPU's cache, unlike those of a CPU: written by the product,
// read by the softmax, and in training written as gradients and read by two more products.
double logits_bytes(const DeviceModel& device, const Op& op, std::span<const TensorType> inputs) {
  const auto* head = dynamic_cast<const LinearCrossEntropy*>(&op);
  if (head == nullptr || device.kind == DeviceKind::cpu) return 0;
  const double passes = head->training() ? 5 : 2;
  return passes * static_cast<double>(inputs[0].rows()) * static_cast<double>(head->classes()) *
         static_cast<double>(size_of(inputs[0].dtype));
}

double seconds_over(const Link& link, double bytes) { return link.latency + bytes / link.bandwidth; }

// Pieces are passed on from rank to rank: all but 1 / ranks of the whole passes through each rank, and the ranks of a
// node share what crosses its border.
double ring_seconds(const DeviceModel& device, const Mesh& mesh, double whole) {
  const double passed = whole * (mesh.ranks - 1) / mesh.ranks;
  const int local = std::min(mesh.ranks, mesh.ranks_per_node);
  double seconds = 0;
  if (local > 1) seconds = seconds_over(device.within_node, passed);
  if (mesh.ranks > local) seconds = std::max(seconds, seconds_over(device.between_nodes, passed / local));
  return seconds;
}

// The steps of the plan after which each bucket's gradients are final, and at which its parameters are first read.
struct BucketSteps {
  std::vector<std::vector<std::size_t>> final_after, first_read_at;  // buckets, by plan step
};

BucketSteps bucket_steps(const RunPlan& run) {
  const Plan& plan = run.training;
  std::vector<std::size_t> final_step(plan.graph.parameters.size()), first_read(plan.graph.parameters.size());
  for (std::size_t s = plan.steps.size(); s-- > 0;) {
    const Node& node = plan.node(plan.steps[s]);
    for (const ValueId input : node.inputs)
      if (input && plan.graph[input].role == Role::parameter)
        first_read[static_cast<std::size_t>(plan.graph[input].parameter)] = s;
    for (const std::int32_t parameter : plan.steps[s].final_gradients)
      final_step[static_cast<std::size_t>(parameter)] = s;
  }
  BucketSteps steps{std::vector<std::vector<std::size_t>>(plan.steps.size()),
                    std::vector<std::vector<std::size_t>>(plan.steps.size())};
  for (std::size_t b = 0; b < run.buckets.size(); ++b) {
    std::size_t final_after = 0, read_at = plan.steps.size() - 1;
    for (const Segment& segment : segments(run.parameters(), run.buckets[b].range)) {
      final_after = std::max(final_after, final_step[segment.parameter]);
      read_at = std::min(read_at, first_read[segment.parameter]);
    }
    steps.final_after[final_after].push_back(b);
    steps.first_read_at[read_at].push_back(b);
  }
  return steps;
}

// Share of its speed that a message within a node keeps while all cores copy: as measured on two (docs/benchmarks.md).
constexpr double beside_copies_of_busy_cores = 0.1;

// Plays a step of one rank through, as trainer/step runs it.
class Player {
 public:
  Player(const DeviceModel& device, const Mesh& mesh, const Config& config, const RunPlan& plan,
         const PlanTimes& times)
      : device_(device),
        mesh_(mesh),
        config_(config),
        plan_(plan),
        times_(times),
        steps_(bucket_steps(plan)),
        beside_copies_(device.busy_cores && mesh.ranks <= mesh.ranks_per_node ? beside_copies_of_busy_cores
                                                                              : 1),
        gathered_(plan.buckets.size()),
        arrived_(plan.buckets.size()) {
    const LeafRange mine = plan.own_leaves();
    leaves_ = accumulation_steps(plan.division.leaves, mine.begin, mine.end);
    combined_ = static_cast<double>(combine_order(plan.roots).size());
  }

  void play_step() {
    shares_.clear();
    for (std::size_t l = 0; l < leaves_.size(); ++l) {
      const bool last_leaf = l + 1 == leaves_.size();
      const LeafRange parts = plan_.division.micro_batches_of(leaves_[l].leaf);
      for (int k = parts.begin; k < parts.end; ++k)
        play_micro_batch(k == parts.begin ? times_.first : times_.later, l == 0 && k == parts.begin,
                         last_leaf && k + 1 == parts.end);
      if (!last_leaf) add(leaves_[l].adds.size(), static_cast<double>(plan_.parameters().elements()));
    }
    reduce();
    update();
  }

  const Timeline& timeline() const { return timeline_; }
  std::vector<OpShare> shares() const {
    std::vector<OpShare> all;
    for (const auto& [name, share] : shares_) all.push_back(share);
    std::ranges::stable_sort(all, std::greater(), &OpShare::seconds);
    return all;
  }

 private:
  void compute(std::string_view name, double seconds, double beside = 1) {
    OpShare& share = shares_[std::string(name)];
    share.name = name;
    ++share.calls;
    share.seconds += seconds;
    timeline_.compute(seconds, beside);
  }
  void move(std::string_view name, double bytes) {
    compute(name, memory_seconds(device_, bytes), beside_copies_);
  }
  // a += b: two read, one written.
  void add(std::size_t times, double elements) {
    for (std::size_t i = 0; i < times; ++i) move("sum of gradients", 12 * elements);
  }
  static double elements(const Range& range) { return static_cast<double>(range.size()); }
  double own_elements(std::size_t bucket) const { return elements(plan_.own_piece(bucket)); }

  void play_micro_batch(std::span<const double> seconds, bool first, bool last) {
    for (std::size_t s = 0; s < seconds.size(); ++s) {
      if (first)
        for (const std::size_t b : steps_.first_read_at[s]) receive(b);
      const Node& node = plan_.training.node(plan_.training.steps[s]);
      compute(node.op->name(), seconds[s]);
      if (last)
        for (const std::size_t b : steps_.final_after[s]) send(b);
    }
  }

  void send(std::size_t bucket) {
    const double all = elements(plan_.buckets[bucket].range);
    add(leaves_.back().adds.size(), all);
    if (plan_.ranks == 1) return;
    if (plan_.reduce_scatters) {
      arrived_[bucket] = timeline_.communicate(reduce_scatter_seconds(device_, mesh_, 4 * all));
      return;
    }
    // Each round carries a root of every rank.
    const auto roots = static_cast<double>(plan_.roots.size()) / plan_.ranks;
    arrived_[bucket] =
        timeline_.communicate(all_to_all_seconds(device_, mesh_, 4 * all * roots / plan_.ranks));
  }

  void reduce() {
    const bool several = plan_.ranks > 1;
    if (several) timeline_.communicate(all_gather_seconds(device_, mesh_, 0));  // losses
    for (std::size_t b = 0; b < plan_.buckets.size(); ++b) {
      if (several) timeline_.wait(*arrived_[b]);
      if (!plan_.reduce_scatters) add(static_cast<std::size_t>(combined_), own_elements(b));
      move("norm", 4 * own_elements(b));
    }
    const double squares =
        static_cast<double>(sizeof(double)) * elements({0, plan_.parameters().elements()}) / flat_block;
    if (several) timeline_.wait(timeline_.communicate(all_gather_seconds(device_, mesh_, squares)));
    move("norm", squares);
  }

  void update() {
    for (std::size_t b = plan_.buckets.size(); b-- > 0;) {
      const double all = 4 * elements(plan_.buckets[b].range);
      if (config_.train.sharding == 0 && plan_.ranks > 1)
        timeline_.wait(timeline_.communicate(all_gather_seconds(device_, mesh_, all)));
      for (const Segment& segment : segments(plan_.parameters(), plan_.updated[b]))
        move("adamw", 28 * static_cast<double>(segment.end - segment.begin));
      if (config_.train.sharding == 1 && plan_.ranks > 1)
        gathered_[b] = timeline_.communicate(all_gather_seconds(device_, mesh_, all));
    }
  }

  void receive(std::size_t bucket) {
    if (gathered_[bucket]) timeline_.wait(*gathered_[bucket]);
    if (config_.run.precision == Precision::bf16) move("copies", 6 * elements(plan_.buckets[bucket].range));
  }

  const DeviceModel& device_;
  const Mesh mesh_;
  const Config& config_;
  const RunPlan& plan_;
  const PlanTimes& times_;
  const BucketSteps steps_;
  const double beside_copies_;
  std::vector<LeafStep> leaves_;
  double combined_ = 0;  // additions that make the sum of all roots
  Timeline timeline_;
  std::map<std::string, OpShare> shares_;
  std::vector<std::optional<Timeline::Collective>> gathered_, arrived_;  // by bucket
};

}  // namespace

double op_seconds(const DeviceModel& device, const Op& op, std::span<const TensorType> inputs,
                  std::span<const TensorType> outputs, bool accumulate) {
  const Cost cost = op.cost(inputs, outputs);
  double bytes = cost.bytes;
  for (std::size_t o = 0; accumulate && o < outputs.size(); ++o)
    if (op.accumulates(static_cast<int>(o))) bytes += static_cast<double>(outputs[o].bytes());
  return std::max(cost.matrix_flops / rate_of(device, op.name()), bytes / device.bandwidth) +
         logits_bytes(device, op, inputs) / device.bandwidth + device.launch;
}

std::vector<double> plan_seconds(const DeviceModel& device, const Plan& plan, bool accumulate) {
  std::vector<double> seconds;
  for (const PlanStep& step : plan.steps) {
    const Node& node = plan.node(step);
    seconds.push_back(op_seconds(device, *node.op, plan.graph.types(node.inputs),
                                 plan.graph.types(node.outputs), accumulate || node.accumulate));
  }
  return seconds;
}

double memory_seconds(const DeviceModel& device, double bytes) {
  return bytes / device.bandwidth + device.launch;
}

double all_to_all_seconds(const DeviceModel& device, const Mesh& mesh, double piece) {
  const int local = std::min(mesh.ranks, mesh.ranks_per_node);
  double seconds = 0;
  if (local > 1) seconds = seconds_over(device.within_node, (local - 1) * piece);
  if (mesh.ranks > local)
    seconds = std::max(seconds, seconds_over(device.between_nodes, (mesh.ranks - local) * piece));
  return seconds;
}

double all_gather_seconds(const DeviceModel& device, const Mesh& mesh, double whole) {
  return device.ring ? ring_seconds(device, mesh, whole)
                     : all_to_all_seconds(device, mesh, whole / mesh.ranks);
}

double reduce_scatter_seconds(const DeviceModel& device, const Mesh& mesh, double whole) {
  return all_gather_seconds(device, mesh, whole);  // the same way, backwards
}

PlanTimes plan_times(const DeviceModel& device, const RunPlan& plan) {
  return {plan_seconds(device, plan.training, false), plan_seconds(device, plan.training, true)};
}

StepPrediction predict_step(const DeviceModel& device, int ranks_per_node, const Config& config,
                            const RunPlan& plan, const PlanTimes& times) {
  Player player(device, {plan.ranks, ranks_per_node}, config, plan, times);
  // The second step has the first one's parameters under way.
  player.play_step();
  const Timeline before = player.timeline();
  player.play_step();
  const Timeline& after = player.timeline();
  StepPrediction prediction;
  prediction.seconds = after.now() - before.now();
  prediction.communication = after.communication() - before.communication();
  prediction.exposed = after.exposed() - before.exposed();
  prediction.shares = player.shares();
  prediction.tokens_per_s =
      static_cast<double>(config.train.batch * config.train.sequence) / prediction.seconds;
  if (device.peak > 0) prediction.mfu = plan.flops_per_step / (device.peak * plan.ranks * prediction.seconds);
  return prediction;
}

}  // namespace muster
