// The benchmarks on a small model: they measure everything that they promise, and their figures fit each other. What
// the figures are is nobody's promise here.

#include <gtest/gtest.h>
#include <set>
#include <string>
#include <vector>

#include "comm/threads/ranks.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "trainer/bench/comm.hpp"
#include "trainer/bench/measure.hpp"
#include "trainer/bench/ops.hpp"
#include "trainer/bench/scaling.hpp"
#include "trainer/bench/step.hpp"
#include "trainer/machine/rank_machine.hpp"

namespace muster {
namespace {

Config small() {
  Config config;
  config.model.layers = 1;
  config.model.width = 32;
  config.model.heads = 2;
  config.model.vocabulary = 67;
  config.data.documents = true;
  config.train.batch = 8;
  config.train.sequence = 16;
  config.run.device = DeviceChoice::cpu;
  resolve(config);
  return config;
}

TEST(Bench, median_is_the_middle_or_the_mean_of_the_two_beside_it) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
}

// On every device at hand.
class BenchOn : public testing::TestWithParam<DeviceKind> {};

TEST_P(BenchOn, ops_are_all_those_of_the_plan_and_the_flat_kernels_each_once) {
  const Config config = for_ranks(small(), 1);
  MemoryAccount account;
  Machine machine(GetParam() == DeviceKind::cuda ? cuda_device(0) : cpu_device(), account);
  const Plan plan = make_plan(
      make_model(config.model)->training(micro_batch_shape(config), Precision::f32, Recompute::none),
      machine.backend().kernels, thread_count());
  const std::vector<OpSpeed> speeds = bench_ops(
      plan, machine, {1e11, 1e10, [](double bytes) { return bytes < 1e4 ? 2e10 : 1e10; }}, 16 << 10);

  std::int64_t calls = 0;
  std::set<std::string> seen;
  for (const OpSpeed& speed : speeds) {
    calls += speed.calls;
    EXPECT_TRUE(seen.insert(speed.op + speed.shapes).second) << speed.op;
    EXPECT_GT(speed.seconds, 0) << speed.op;
    EXPECT_GT(speed.bytes, 0) << speed.op;
    EXPECT_EQ(speed.copy, speed.bytes < 1e4 ? 2e10 : 1e10) << speed.op;
    const double products = speed.flops / 1e11, copy = speed.bytes / speed.copy;
    EXPECT_DOUBLE_EQ(speed.share, std::max(products, copy) / speed.seconds) << speed.op;
    EXPECT_EQ(speed.limit, products > copy            ? Limit::products
                           : speed.bytes > (16 << 10) ? Limit::copy
                                                      : Limit::cache)
        << speed.op;
  }
  EXPECT_EQ(calls, static_cast<std::int64_t>(plan.steps.size()));
  for (const char* op : {"adamw", "sgd", "block_squares", "add", "to_bf16"})
    EXPECT_TRUE(seen.contains(op + std::string("f32[36864]"))) << op;
  EXPECT_EQ(account.peak(MemoryKind::activations), 0u);  // a run's account knows nothing of it
}

TEST(Bench, collectives_tell_the_bandwidth_of_a_link_whatever_the_number_of_ranks) {
  for (const int ranks : {2, 3})
    run_ranks(ranks, [&](Communicator& comm) {
      MemoryAccount account;
      Machine machine(cpu_device(), account);
      for (const std::string& collective : collectives_of(comm)) {
        const CollectiveSpeed speed = measure_collective(comm, machine, collective, 12 << 10);
        EXPECT_EQ(speed.collective, collective);
        EXPECT_EQ(speed.bytes, 12u << 10);
        EXPECT_GT(speed.seconds, 0);
        const double moved = (ranks - 1.0) / ranks;
        EXPECT_DOUBLE_EQ(speed.algbw(), 12 * 1024 / speed.seconds);
        EXPECT_DOUBLE_EQ(speed.busbw(), speed.algbw() * (collective == "all_reduce" ? 2 * moved : moved));
      }
      comm.barrier("end").wait();
    });
}

TEST(Bench, collectives_move_whole_floats_of_every_rank) {
  run_ranks(3, [](Communicator& comm) {
    MemoryAccount account;
    Machine machine(cpu_device(), account);
    EXPECT_EQ(measure_collective(comm, machine, "all_gather", 1024).bytes, 1020u);
    EXPECT_EQ(measure_collective(comm, machine, "all_to_all", 1).bytes, 12u);
    comm.barrier("end").wait();
  });
  EXPECT_EQ(collective_sizes().front(), 1u << 10);
  EXPECT_EQ(collective_sizes().back(), 64u << 20);
}

TEST_P(BenchOn, step_is_divided_by_op_without_a_rest_unaccounted_for) {
  Config config = for_ranks(small(), 1);
  if (GetParam() == DeviceKind::cuda) config.run.device = DeviceChoice::cuda;
  run_ranks(2, [&](Communicator& comm) {
    MemoryAccount account;
    RankMachine rank(config, comm, account);
    SyntheticRun run(config, rank.ranks(), rank.machine());
    const StepTable table = bench_step(run, 2);
    double sum = table.rest;
    std::int64_t calls = 0;
    for (const OpShare& row : table.rows) {
      sum += row.seconds;
      calls += row.calls;
    }
    EXPECT_NEAR(sum, table.timed_seconds, 1e-12);
    EXPECT_GT(table.seconds, 0);
    EXPECT_GT(table.seconds, table.exposed);
    // Fast, of eight samples: four micro-batches of one a rank.
    EXPECT_EQ(calls, 4 * static_cast<std::int64_t>(run.plan().training.steps.size()));
    EXPECT_EQ(table.plan_seconds.size(), run.plan().training.steps.size());
    comm.barrier("end").wait();
  });
}

std::vector<DeviceKind> devices() {
  return cuda_device_count() > 0 ? std::vector{DeviceKind::cpu, DeviceKind::cuda}
                                 : std::vector{DeviceKind::cpu};
}
INSTANTIATE_TEST_SUITE_P(Devices, BenchOn, testing::ValuesIn(devices()), [](const auto& test) {
  return std::string(test.param == DeviceKind::cuda ? "cuda" : "cpu");
});

// Ranks that take no part wait for the figures of those that do.
TEST(Bench, scaling_ends_on_all_ranks_when_none_of_their_numbers_has_the_memory) {
  Config config = small();
  config.model.width = 1 << 20;
  config.model.feed_forward = 1 << 22;
  config.model.layers = 100;
  run_ranks(3, [&](Communicator& comm) {
    MemoryAccount account;
    EXPECT_THROW(bench_scaling(config, comm, account, 1, [](const ScalingRow&) { FAIL(); }), UserError);
    comm.barrier("end").wait();
  });
}

TEST(Bench, scaling_has_a_row_for_each_number_of_ranks) {
  const Config config = small();
  run_ranks(3, [&](Communicator& comm) {
    MemoryAccount account;
    std::size_t told = 0;
    const std::vector<ScalingRow> rows =
        bench_scaling(config, comm, account, 1, [&](const ScalingRow&) { ++told; });
    EXPECT_EQ(told, rows.size());
    std::vector<std::string> seen;
    for (const ScalingRow& row : rows) {
      seen.push_back(row.mode + " " + std::to_string(row.ranks) + " " + std::to_string(row.batch));
      const double tokens = static_cast<double>(row.batch * config.train.sequence);
      EXPECT_DOUBLE_EQ(row.tokens_per_s, tokens / row.figures.step_seconds);
      EXPECT_NEAR(row.efficiency, row.tokens_per_s / rows.front().tokens_per_s / row.ranks, 1e-12);
      EXPECT_GT(row.figures.predicted_seconds, row.figures.predicted_exposed);
      EXPECT_GE(row.figures.imbalance, 0);
      if (row.ranks == 1) {
        EXPECT_EQ(row.figures.predicted_exposed, 0);
      }
    }
    EXPECT_EQ(seen, (std::vector<std::string>{"strong 1 8", "strong 2 8", "strong 3 8", "weak 1 8",
                                              "weak 2 16", "weak 3 24"}));
    comm.barrier("end").wait();
  });
}

TEST(Bench, scaling_measures_few_numbers_of_many_ranks) {
  EXPECT_EQ(scaling_counts(1), (std::vector<int>{1}));
  EXPECT_EQ(scaling_counts(5), (std::vector<int>{1, 2, 3, 4, 5}));
  EXPECT_EQ(scaling_counts(24), (std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 16, 24}));
}

TEST(Bench, scaling_is_told_as_a_table_that_other_programs_read) {
  ScalingRow row{"weak", 2, 16, {0.5, 0.1, 0.45, 0.08, 0.02}, 512, 0.9};
  EXPECT_EQ(scaling_csv({row}),
            "mode,ranks,batch,step_seconds,tokens_per_s,efficiency,exposed_seconds,predicted_step_seconds,"
            "predicted_exposed_seconds,imbalance_seconds\n"
            "weak,2,16,0.5,512,0.9000,0.1,0.45,0.08,0.02\n");
}

}  // namespace
}  // namespace muster
