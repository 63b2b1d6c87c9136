#include "trainer/plan/cost.hpp"

#include <map>
#include <optional>

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

// Share of its speed that a message within a node keeps while all cores copy: as measured on two (docs/benchmarks.md).
constexpr double beside_copies_of_busy_cores = 0.1;

// Plays a step of one rank through, entry by entry of its schedule.
class Player {
 public:
  Player(const DeviceModel& device, const Mesh& mesh, const Config& config, const RunPlan& plan,
         const PlanTimes& times)
      : device_(device),
        mesh_(mesh),
        config_(config),
        plan_(plan),
        times_(times),
        beside_copies_(device.busy_cores && mesh.ranks <= mesh.ranks_per_node ? beside_copies_of_busy_cores
                                                                              : 1),
        gathered_(plan.buckets.size()),
        arrived_(plan.buckets.size()) {}

  void play_step() {
    shares_.clear();
    for (const StepEntry& entry : plan_.schedule.entries)
      std::visit([this](const auto& e) { play(e); }, entry);
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
  void add(double elements) { move("sum of gradients", 12 * elements); }
  static double elements(const Range& range) { return static_cast<double>(range.size()); }
  double all_elements() const { return static_cast<double>(plan_.parameters().elements()); }
  double elements_of(std::size_t bucket) const { return elements(plan_.buckets[bucket].range); }
  double own_elements(std::size_t bucket) const { return elements(plan_.own_piece(bucket)); }
  double squares_bytes() const { return static_cast<double>(sizeof(double)) * all_elements() / flat_block; }
  Timeline::Collective gather(double whole) {
    return timeline_.communicate(all_gather_seconds(device_, mesh_, whole));
  }

  // The host's work, and what moves next to nothing.
  void play(const entry::ClearReports&) {}
  void play(const entry::TakeBatch&) {}
  void play(const entry::Report&) {}

  void play(const entry::RunKernels& e) {
    const std::vector<double>& seconds = e.accumulate ? times_.later : times_.first;
    for (std::size_t s = e.begin; s < e.end; ++s)
      compute(plan_.training.node(plan_.training.steps[s]).op->name(), seconds[s]);
  }
  void play(const entry::Add& e) { add(e.bucket ? elements_of(*e.bucket) : all_elements()); }
  void play(const entry::Receive& e) {
    if (gathered_[e.bucket]) timeline_.wait(*gathered_[e.bucket]);
    if (config_.run.precision == Precision::bf16) move("copies", 6 * elements_of(e.bucket));
  }
  void play(const entry::Send& e) {
    const double all = 4 * elements_of(e.bucket);
    // Each round of direct messages carries a root of every rank.
    const auto roots = static_cast<double>(plan_.roots.size()) / plan_.ranks;
    arrived_[e.bucket] = timeline_.communicate(
        plan_.reduce_scatters ? reduce_scatter_seconds(device_, mesh_, all)
                              : all_to_all_seconds(device_, mesh_, all * roots / plan_.ranks));
  }
  void play(const entry::ShareReports&) { reported_ = gather(0); }
  void play(const entry::FinishSum& e) {
    if (arrived_[e.bucket]) timeline_.wait(*arrived_[e.bucket]);
    for (int i = 0; i < e.additions; ++i) add(own_elements(e.bucket));
  }
  void play(const entry::Squares& e) { move("norm", 4 * own_elements(e.bucket)); }
  void play(const entry::ShareSquares&) { timeline_.wait(gather(squares_bytes())); }
  void play(const entry::Decide&) {
    if (reported_) timeline_.wait(*reported_);
    move("norm", squares_bytes());
  }
  void play(const entry::ShareGradients& e) { timeline_.wait(gather(4 * elements_of(e.bucket))); }
  void play(const entry::Update& e) {
    for (const Segment& segment : segments(plan_.parameters(), plan_.updated[e.bucket]))
      move(plan_.optimizer->name(),
           plan_.optimizer->bytes_per_element() * static_cast<double>(segment.end - segment.begin));
  }
  void play(const entry::Gather& e) { gathered_[e.bucket] = gather(4 * elements_of(e.bucket)); }

  const DeviceModel& device_;
  const Mesh mesh_;
  const Config& config_;
  const RunPlan& plan_;
  const PlanTimes& times_;
  const double beside_copies_;
  Timeline timeline_;
  std::map<std::string, OpShare> shares_;
  std::vector<std::optional<Timeline::Collective>> gathered_, arrived_;  // by bucket
  std::optional<Timeline::Collective> reported_;
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
