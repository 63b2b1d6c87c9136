// The time of a training step, told from its plan and a model of the device, before anything runs.
//
// A kernel takes max(FLOP / rate, bytes / bandwidth) and the gap to the next one. A collective takes latency +
// bytes / bandwidth (the alpha-beta model), whichever of the links within a node and between nodes is slower. The
// step's schedule (step_schedule.hpp) is then played through on two in-order queues, computation and communication: what
// the computation waits is the exposed communication. On CPUs whose cores all compute, messages within a node are copies
// by these cores: products hide them, other copies hide a tenth.
#pragma once

#include <algorithm>
#include <cstddef>
#include <ranges>
#include <span>
#include <string>
#include <vector>

#include "trainer/config/config.hpp"
#include "trainer/plan/devices.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {

// Seconds of one call. `accumulate`: outputs that are running sums are also read.
double op_seconds(const DeviceModel& device, const Op& op, std::span<const TensorType> inputs,
                  std::span<const TensorType> outputs, bool accumulate);
// The same for each step of a plan.
std::vector<double> plan_seconds(const DeviceModel& device, const Plan& plan, bool accumulate);
// Of a kernel that only moves memory.
double memory_seconds(const DeviceModel& device, double bytes);

struct Mesh {
  int ranks = 1;
  int ranks_per_node = 1;  // divides `ranks`, or is no less
};
// Every rank sends `piece` bytes to each other rank.
double all_to_all_seconds(const DeviceModel& device, const Mesh& mesh, double piece);
// Every rank ends with, or starts from, `whole` bytes, of which 1 / ranks are its own.
double all_gather_seconds(const DeviceModel& device, const Mesh& mesh, double whole);
double reduce_scatter_seconds(const DeviceModel& device, const Mesh& mesh, double whole);

// Two in-order queues: computation, and communication beside it.
class Timeline {
 public:
  using Collective = std::size_t;

  // `beside`: the share of its speed that communication keeps meanwhile.
  void compute(double seconds, double beside = 1) {
    for (double& end : std::views::reverse(ends_)) {
      if (end <= now_) break;
      end = std::min(now_ + (end - now_) / beside, end + (1 - beside) * seconds);
    }
    now_ += seconds;
  }
  // Starts when the computation has come to here and the collective before it has ended.
  Collective communicate(double seconds) {
    communication_ += seconds;
    ends_.push_back(std::max(now_, ends_.empty() ? 0.0 : ends_.back()) + seconds);
    return ends_.size() - 1;
  }
  // The computation goes on when the collective has ended.
  void wait(Collective collective) {
    exposed_ += std::max(0.0, ends_[collective] - now_);
    now_ = std::max(now_, ends_[collective]);
  }

  double now() const { return now_; }
  double exposed() const { return exposed_; }
  double communication() const { return communication_; }

 private:
  double now_ = 0, exposed_ = 0, communication_ = 0;
  std::vector<double> ends_;  // of the collectives
};

struct OpShare {
  // Of the op, or of what happens outside the graph: "sum of gradients", "norm", "copies", the optimizer's.
  std::string name;
  std::int64_t calls = 0;
  double seconds = 0;
};

struct StepPrediction {
  double seconds = 0;           // from one step to the next
  double communication = 0;     // of the queue, hidden or not
  double exposed = 0;           // what the computation waits for it
  std::vector<OpShare> shares;  // of this rank's computation, the largest first
  double tokens_per_s = 0;      // of all ranks
  double mfu = 0;               // 0: the device has no peak
};

// Seconds of the plan's steps, by the models above or measured: in the first micro-batch of a leaf, whose gradients
// start from zero, and in the others.
struct PlanTimes {
  std::vector<double> first, later;
};
PlanTimes plan_times(const DeviceModel& device, const RunPlan& plan);

StepPrediction predict_step(const DeviceModel& device, int ranks_per_node, const Config& config,
                            const RunPlan& plan, const PlanTimes& times);

}  // namespace muster
