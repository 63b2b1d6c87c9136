// The prediction of a step, against cases computed by hand: devices that are infinitely fast but in one thing.

#include "trainer/plan/cost.hpp"

#include <gtest/gtest.h>
#include <limits>
#include <vector>

#include "model/ops/attention.hpp"
#include "model/ops/cross_entropy.hpp"
#include "model/ops/linear.hpp"
#include "trainer/config/read.hpp"

namespace muster {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

DeviceModel infinitely_fast() {
  DeviceModel device;
  device.product_rate = device.attention_rate = device.attention_gradient_rate = device.bandwidth = infinity;
  device.within_node = device.between_nodes = {0, infinity};
  return device;
}

// An op on tensors that need not exist.
double seconds(const DeviceModel& device, const Op& op, const std::vector<TensorType>& inputs,
               bool accumulate = false) {
  return op_seconds(device, op, inputs, op.infer(inputs), accumulate);
}

const Linear product(Activation::none, false);
const std::vector<TensorType> product_inputs = {{{10, 20}, DType::f32}, {{30, 20}, DType::f32}};

TEST(Cost, of_a_product_is_its_flops_over_the_rate_of_products) {
  DeviceModel device = infinitely_fast();
  device.product_rate = 1000;
  EXPECT_DOUBLE_EQ(seconds(device, product, product_inputs), 2.0 * 10 * 20 * 30 / 1000);
}

TEST(Cost, of_a_product_with_slow_memory_is_its_bytes_over_the_bandwidth) {
  DeviceModel device = infinitely_fast();
  device.product_rate = 1e9;
  device.bandwidth = 10;
  EXPECT_DOUBLE_EQ(seconds(device, product, product_inputs), 4.0 * (200 + 600 + 300) / 10);
}

TEST(Cost, of_every_call_has_the_gap_to_the_next_kernel) {
  DeviceModel device = infinitely_fast();
  device.launch = 0.25;
  EXPECT_DOUBLE_EQ(seconds(device, product, product_inputs), 0.25);
  EXPECT_DOUBLE_EQ(memory_seconds(device, 1e9), 0.25);
}

TEST(Cost, of_a_running_sum_reads_what_it_adds_to) {
  DeviceModel device = infinitely_fast();
  device.bandwidth = 1;
  const LinearWeightGradient gradient(false);
  const std::vector<TensorType> inputs = {{{10, 30}, DType::f32}, {{10, 20}, DType::f32}};
  EXPECT_DOUBLE_EQ(seconds(device, gradient, inputs, true) - seconds(device, gradient, inputs, false),
                   4.0 * 30 * 20);
}

TEST(Cost, of_logits_that_leave_the_cache_counts_on_gpus_only) {
  DeviceModel device = infinitely_fast();
  device.bandwidth = 1;
  const LinearCrossEntropy head(100, true);
  const std::vector<TensorType> inputs = {
      {{10, 20}, DType::bf16}, {{128, 20}, DType::bf16}, {{10}, DType::i32}};
  const double cpu = seconds(device, head, inputs);
  device.kind = DeviceKind::cuda;
  EXPECT_DOUBLE_EQ(seconds(device, head, inputs) - cpu, 5.0 * 10 * 100 * 2);
}

// Two nodes of four ranks; 100 bytes/s inside, 10 between; 1 and 2 seconds of latency.
DeviceModel two_links() {
  DeviceModel device = infinitely_fast();
  device.within_node = {1, 100};
  device.between_nodes = {2, 10};
  return device;
}

TEST(Cost, of_direct_messages_is_that_of_the_slower_link) {
  const DeviceModel device = two_links();
  EXPECT_DOUBLE_EQ(all_to_all_seconds(device, {8, 4}, 50), 2 + 4 * 50.0 / 10);
  EXPECT_DOUBLE_EQ(all_to_all_seconds(device, {4, 4}, 50), 1 + 3 * 50.0 / 100);
  EXPECT_DOUBLE_EQ(all_to_all_seconds(device, {1, 4}, 50), 0);
  EXPECT_DOUBLE_EQ(all_gather_seconds(device, {8, 4}, 400), 2 + 4 * 50.0 / 10);  // a rank's own 50 to all
}

TEST(Cost, of_a_ring_shares_the_border_of_a_node_among_its_ranks) {
  DeviceModel device = two_links();
  device.ring = true;
  EXPECT_DOUBLE_EQ(all_gather_seconds(device, {8, 4}, 800), 2 + 700.0 / 4 / 10);
  EXPECT_DOUBLE_EQ(all_gather_seconds(device, {8, 1}, 800), 2 + 700.0 / 10);
  EXPECT_DOUBLE_EQ(reduce_scatter_seconds(device, {4, 4}, 800), 1 + 600.0 / 100);
}

TEST(Cost, communication_beside_computation_is_exposed_only_where_that_waits) {
  Timeline timeline;
  timeline.compute(2);
  const auto first = timeline.communicate(3);   // 2 to 5
  timeline.compute(1);                          // to 3
  const auto second = timeline.communicate(4);  // 5 to 9: after the first
  timeline.compute(4);                          // to 7
  timeline.wait(first);
  EXPECT_DOUBLE_EQ(timeline.exposed(), 0);
  timeline.wait(second);
  EXPECT_DOUBLE_EQ(timeline.now(), 9);
  EXPECT_DOUBLE_EQ(timeline.exposed(), 2);
  EXPECT_DOUBLE_EQ(timeline.communication(), 7);
}

// Eight samples, each a micro-batch and a shard, through a model of one bucket.
Config small(Reduction reduction) {
  Config config;
  config.model.layers = 2;
  config.model.width = 32;
  config.model.heads = 2;
  config.model.vocabulary = 67;
  config.train.batch = config.train.shards = 8;
  config.train.sequence = 16;
  config.train.reduction = reduction;
  resolve(config);
  return for_ranks(config, 1);
}

double parameters(const RunPlan& plan) { return static_cast<double>(plan.training.graph.parameters.size()); }

StepPrediction predict(const DeviceModel& device, const Config& config, int ranks) {
  const RunPlan plan = make_run_plan(config, ranks, 0, 1, 0);
  return predict_step(device, ranks, config, plan, plan_times(device, plan));
}

// Each kernel takes a second: those of eight micro-batches, the squares of one bucket, their sum, and AdamW of each
// parameter.
TEST(Cost, of_a_step_on_one_rank_is_the_sum_of_its_kernels) {
  DeviceModel device = infinitely_fast();
  device.launch = 1;
  const Config config = small(Reduction::fast);
  const RunPlan plan = make_run_plan(config, 1, 0, 1, 0);
  ASSERT_EQ(plan.buckets.size(), 1u);
  const StepPrediction step = predict(device, config, 1);
  EXPECT_DOUBLE_EQ(step.seconds,
                   8.0 * static_cast<double>(plan.training.steps.size()) + 2 + parameters(plan));
  EXPECT_DOUBLE_EQ(step.exposed, 0);
  EXPECT_DOUBLE_EQ(step.communication, 0);
  EXPECT_DOUBLE_EQ(step.tokens_per_s, 8 * 16 / step.seconds);
  EXPECT_EQ(step.mfu, 0);
}

// A rank's four leaves are added three times, the other rank's root once; bf16 copies its weights.
TEST(Cost, of_an_invariant_step_adds_the_leaves_and_the_roots) {
  DeviceModel device = infinitely_fast();
  device.launch = 1;
  Config config = small(Reduction::invariant);
  config.run.precision = Precision::bf16;
  const RunPlan plan = make_run_plan(config, 2, 0, 1, 0);
  const auto owned = static_cast<double>(segments(plan.parameters(), plan.updated[0]).size());
  const StepPrediction step = predict(device, config, 2);
  EXPECT_DOUBLE_EQ(step.seconds,
                   4.0 * static_cast<double>(plan.training.steps.size()) + 3 + 1 + 2 + owned + 1);
}

// The computation waits for a bucket of gradients and for the gathered parameters, ten seconds each; what is small
// takes no time, for there is no latency.
TEST(Cost, of_a_step_has_each_wait_where_the_computation_needs_what_travels) {
  DeviceModel device = infinitely_fast();
  device.launch = 1;
  const Config config = small(Reduction::fast);
  const RunPlan plan = make_run_plan(config, 2, 0, 1, 0);
  const auto bytes = 4 * static_cast<double>(plan.parameters().elements());
  device.within_node.bandwidth = bytes / 2 / 10;
  const StepPrediction step = predict(device, config, 2);
  const double squares = 10 * 2.0 / flat_block;  // eight bytes of each block beside four of each element
  const auto owned = static_cast<double>(segments(plan.parameters(), plan.updated[0]).size());
  // Then the root of the other rank is added, squares are taken, and summed, and AdamW runs.
  EXPECT_NEAR(step.seconds,
              4.0 * static_cast<double>(plan.training.steps.size()) + 10 + 1 + 1 + squares + 1 + owned + 10,
              1e-9);
  EXPECT_NEAR(step.exposed, 10 + squares + 10, 1e-9);
}

TEST(Cost, communication_goes_on_slower_beside_what_leaves_it_a_share_of_its_speed) {
  Timeline timeline;
  const auto before = timeline.communicate(1);  // 0 to 1
  timeline.compute(2);
  const auto first = timeline.communicate(3);   // 2 to 5
  const auto second = timeline.communicate(1);  // 5 to 6
  timeline.compute(1);                          // to 3: two are left of the first
  timeline.compute(4, 0.25);                    // to 7: one is left
  timeline.wait(before);
  EXPECT_DOUBLE_EQ(timeline.exposed(), 0);
  timeline.wait(first);
  EXPECT_DOUBLE_EQ(timeline.now(), 8);
  timeline.wait(second);
  EXPECT_DOUBLE_EQ(timeline.exposed(), 2);

  const auto third = timeline.communicate(0.5), fourth = timeline.communicate(1);  // 9 to 9.5, to 10.5
  timeline.compute(4, 0.25);  // to 13: the third ends at 11, half of the fourth is left
  timeline.wait(third);
  EXPECT_DOUBLE_EQ(timeline.exposed(), 2);
  timeline.wait(fourth);
  EXPECT_DOUBLE_EQ(timeline.exposed(), 2.5);
}

// Two buckets; the products and all latencies take no time. While the messages of one travel, the sums and the norm move 16
// bytes of each own element of the other, AdamW 28.
TEST(Cost, hides_a_tenth_of_a_copy_where_busy_cores_carry_the_messages) {
  DeviceModel device = infinitely_fast();
  Config config;
  config.model.layers = 6;
  config.model.width = 384;
  config.model.heads = 6;
  config.model.vocabulary = 257;
  config.train.batch = config.train.shards = 8;
  config.train.sequence = 16;
  config.train.micro_batch = 1;
  resolve(config);
  const RunPlan plan = make_run_plan(config, 2, 0, 1, 0);
  ASSERT_EQ(plan.buckets.size(), 2u);
  const PlanTimes at_once = plan_times(device, plan);
  device.bandwidth = 1e6;
  device.within_node.bandwidth = 0.5e6;
  const StepPrediction hidden = predict_step(device, 2, config, plan, at_once);
  device.busy_cores = true;
  const StepPrediction step = predict_step(device, 2, config, plan, at_once);
  EXPECT_DOUBLE_EQ(step.communication, hidden.communication);
  const double copied = 44e-6 * static_cast<double>(plan.own_piece(0).size());
  EXPECT_GT(hidden.communication - hidden.exposed, 0.2 * copied);
  EXPECT_NEAR(step.communication - step.exposed, 0.1 * copied, 1e-3 * copied);  // padding
  EXPECT_NEAR(step.seconds - step.exposed, hidden.seconds - hidden.exposed, 1e-9);
  // Between nodes the network carries them.
  device.between_nodes = device.within_node;
  EXPECT_DOUBLE_EQ(predict_step(device, 1, config, plan, at_once).exposed, hidden.exposed);
}

// Gradients, losses, norm and parameters, one bucket of each.
TEST(Cost, of_a_step_that_only_communicates_is_its_collectives) {
  DeviceModel device = infinitely_fast();
  device.within_node.latency = 10;
  for (const Reduction reduction : {Reduction::fast, Reduction::invariant}) {
    const StepPrediction step = predict(device, small(reduction), 2);
    EXPECT_DOUBLE_EQ(step.seconds, 40);
    EXPECT_DOUBLE_EQ(step.communication, 40);
    EXPECT_DOUBLE_EQ(step.exposed, 40);
  }
}

// Each kernel takes a second; the first of three ranks has three of the eight micro-batches, the last two.
TEST(Cost, of_a_step_follows_the_micro_batches_of_the_rank) {
  DeviceModel device = infinitely_fast();
  device.launch = 1;
  const Config config = small(Reduction::fast);
  const auto computed = [&](int rank) {
    const RunPlan plan = make_run_plan(config, 3, rank, 1, 0);
    const StepPrediction step = predict_step(device, 3, config, plan, plan_times(device, plan));
    std::int64_t calls = 0;
    for (const OpShare& share : step.shares)
      if (share.name == "attention") calls += share.calls;
    return calls;
  };
  EXPECT_EQ(computed(0), 2 * 3);  // layers x micro-batches
  EXPECT_EQ(computed(2), 2 * 2);
}

TEST(Cost, counts_mfu_over_the_peak_of_all_ranks) {
  DeviceModel device = infinitely_fast();
  device.product_rate = device.attention_rate = device.attention_gradient_rate = 1e6;
  device.peak = 4e6;
  for (const int ranks : {1, 2, 4})
    EXPECT_NEAR(predict(device, small(Reduction::fast), ranks).mfu, 0.25, 1e-12);
}

// GPT-2 has nineteen buckets: all but those of the first layers travel while backward goes on, and all but those of
// the embedding, six, while the next forward does.
TEST(Cost, hides_most_of_the_communication_behind_a_longer_backward) {
  Config config = read_config("configs/gpt2-124m.toml", {});
  config.train.batch = 4 * config.train.micro_batch;
  DeviceModel device = infinitely_fast();
  device.product_rate = device.attention_rate = device.attention_gradient_rate = 1e12;
  const double computation = predict(device, config, 1).seconds / 2;

  device.within_node.bandwidth = 4 * 124e6 / (computation / 10);
  const StepPrediction step = predict(device, config, 2);
  EXPECT_NEAR(step.communication, computation / 10, computation / 100);  // half of two times the gradients
  EXPECT_GT(step.exposed, 0);
  EXPECT_LT(step.exposed, 0.5 * step.communication);
  EXPECT_NEAR(step.seconds, computation + step.exposed, 1e-9);
}

TEST(Cost, shares_of_the_computation_and_what_is_exposed_make_the_step) {
  const DeviceModel device = gpu_model("h100", Precision::bf16);
  Config config = read_config("configs/gpt2-124m.toml", {});
  const StepPrediction step = predict(device, config, 2);
  double sum = step.exposed;
  for (const OpShare& share : step.shares) sum += share.seconds;
  EXPECT_NEAR(sum, step.seconds, 1e-9 * step.seconds);
  EXPECT_GT(step.mfu, 0.2);
  EXPECT_LT(step.mfu, 0.8);
}

}  // namespace
}  // namespace muster
