// The plan of a run: little waste in the configurations that come with Muster, memory that policies save, and
// divisions that are refused.

#include "trainer/plan/run_plan.hpp"

#include <gtest/gtest.h>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "tests/model/plan_check.hpp"
#include "tests/trainer/small_run.hpp"
#include "trainer/config/read.hpp"

namespace muster {
namespace {

Config configuration(const std::string& name, std::vector<Override> overrides = {}) {
  if (name == "quickstart") overrides.push_back({"model.vocabulary", "257"});
  return for_ranks(read_config("configs/" + name + ".toml", overrides), 1);
}

std::string refusal(const Config& config, int ranks) {
  try {
    make_run_plan(config, ranks, 0, 1, 0);
  } catch (const UserError& error) {
    return error.what();
  }
  return "none";
}

class Configurations : public testing::TestWithParam<std::string> {
 protected:
  // At several lengths, with each policy.
  static std::vector<RunPlan> plans(const std::string& name) {
    std::vector<RunPlan> all;
    for (const std::string sequence : {"256", "1024", "2048"})
      for (const std::string_view recompute : spellings(Recompute()))
        all.push_back(make_run_plan(configuration(name, {{"train.sequence", sequence},
                                                         {"model.context", sequence},
                                                         {"train.micro_batch", "1"},
                                                         {"train.recompute", std::string(recompute)}}),
                                    1, 0, 2, 0));
    return all;
  }
};

TEST_P(Configurations, waste_at_most_a_tenth_of_the_arena) {
  for (const RunPlan& plan : plans(GetParam()))
    for (const Plan* p : {&plan.training, &plan.evaluation})
      EXPECT_LE(static_cast<double>(p->arena_bytes), 1.1 * static_cast<double>(p->largest_live_bytes));
}

TEST_P(Configurations, overlap_nothing_that_is_still_needed) {
  for (const RunPlan& plan : plans(GetParam()))
    for (const Plan* p : {&plan.training, &plan.evaluation})
      EXPECT_EQ(plan_check::faults(*p), std::vector<std::string>());
}

// The policies in the order of what they keep: each needs less memory than the one before.
TEST_P(Configurations, shrink_when_more_is_computed_again) {
  const std::vector<RunPlan> all = plans(GetParam());
  for (std::size_t i = 0; i < all.size(); i += 3) {
    EXPECT_GT(all[i].training.arena_bytes, all[i + 1].training.arena_bytes);
    EXPECT_GT(all[i + 1].training.arena_bytes, all[i + 2].training.arena_bytes);
  }
}

std::string name_of_case(const testing::TestParamInfo<std::string>& test) {
  std::string name = test.param;
  for (char& c : name)
    if (c == '-' || c == '.') c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Shipped, Configurations,
                         testing::Values("tiny", "quickstart", "gpt2-124m", "llama-0.5b", "llama-1.5b"),
                         name_of_case);

TEST(RunPlan, knows_the_parameters_of_models_that_others_count) {
  EXPECT_EQ(make_run_plan(configuration("gpt2-124m"), 1, 0, 1, 0).parameters().logical_elements(), 124439808);
  EXPECT_EQ(make_run_plan(configuration("llama-0.5b"), 1, 0, 1, 0).parameters().logical_elements(),
            494032768);
  EXPECT_EQ(make_run_plan(configuration("llama-1.5b"), 1, 0, 1, 0).parameters().logical_elements(),
            1543714304);
}

TEST(RunPlan, divides_optimizer_state_over_the_ranks_when_sharded) {
  Config config = configuration("gpt2-124m");
  const auto optimizer = static_cast<std::size_t>(MemoryKind::optimizer);
  const std::uint64_t whole = make_run_plan(config, 1, 0, 1, 0).memory[optimizer];
  const std::uint64_t quarter = make_run_plan(config, 4, 0, 1, 0).memory[optimizer];
  EXPECT_NEAR(static_cast<double>(quarter), static_cast<double>(whole) / 4,
              1e-3 * static_cast<double>(whole));
  config.train.sharding = 0;
  EXPECT_EQ(make_run_plan(config, 4, 0, 1, 0).memory[optimizer], whole);
}

TEST(RunPlan, counts_the_state_of_each_optimizer) {
  Config config = configuration("gpt2-124m");
  const auto optimizer = static_cast<std::size_t>(MemoryKind::optimizer);
  const std::uint64_t adamw = make_run_plan(config, 1, 0, 1, 0).memory[optimizer];
  config.optimizer.kind = OptimizerKind::sgd;
  EXPECT_EQ(make_run_plan(config, 1, 0, 1, 0).memory[optimizer], adamw / 2);
  config.optimizer.momentum = 0;
  EXPECT_EQ(make_run_plan(config, 1, 0, 1, 0).memory[optimizer], 0u);
}

TEST(RunPlan, invariant_keeps_a_gradient_for_each_open_subtree) {
  Config config = configuration("gpt2-124m");
  config.train.reduction = Reduction::invariant;  // eight shards
  EXPECT_EQ(make_run_plan(config, 1, 0, 1, 0).gradient_buffers, 4);
  EXPECT_EQ(make_run_plan(config, 2, 0, 1, 0).gradient_buffers, 3);
  EXPECT_EQ(make_run_plan(config, 8, 3, 1, 0).gradient_buffers, 1);
  config.train.reduction = Reduction::fast;
  EXPECT_EQ(make_run_plan(config, 2, 0, 1, 0).gradient_buffers, 1);
}

TEST(RunPlan, a_power_of_two_of_ranks_sends_what_an_all_reduce_would) {
  Config config = configuration("gpt2-124m");
  config.train.reduction = Reduction::invariant;
  for (const int ranks : {2, 4, 8}) {
    const RunPlan plan = make_run_plan(config, ranks, 0, 1, 0);
    const double all_reduce =
        2.0 * (ranks - 1) / ranks * 4 * static_cast<double>(plan.parameters().elements());
    // The squares of the norm's blocks come on top, 8 bytes for 4,096 elements, and the losses.
    EXPECT_NEAR(static_cast<double>(plan.bytes_sent_per_step), all_reduce, 2e-3 * all_reduce);
  }
  EXPECT_EQ(make_run_plan(config, 1, 0, 1, 0).bytes_sent_per_step, 0u);
}

TEST(RunPlan, of_sizes_beyond_any_machine_is_refused_before_they_overflow) {
  for (const std::vector<Override>& sizes : std::vector<std::vector<Override>>{
           {{"model.layers", "4096"}, {"model.width", "16777216"}, {"model.heads", "1"}},
           {{"model.vocabulary", "2147483647"}, {"model.width", "16777216"}, {"model.heads", "16"}},
           {{"model.context", "2147483647"}, {"model.width", "65536"}, {"model.heads", "64"}},
           {{"model.feed_forward", "16777216"}, {"model.width", "16777216"}, {"model.heads", "16"}},
           {{"train.sequence", "2147483647"},
            {"train.batch", "8"},
            {"train.micro_batch", "1"},
            {"model.context", "2147483647"}},
           {{"train.sequence", "1048576"},
            {"model.context", "1048576"},
            {"train.batch", "8192"},
            {"train.micro_batch", "1024"}}})
    EXPECT_NE(refusal(configuration("gpt2-124m", sizes), 1).find("beyond any machine"), std::string::npos)
        << sizes.front().key;
}

TEST(RunPlan, of_millions_of_micro_batches_is_refused_before_they_are_listed) {
  Config config = small_run::config();
  config.train.reduction = Reduction::fast;
  config.train.batch = 2147483647;
  config.train.micro_batch = 1;
  EXPECT_NE(refusal(config, 3).find("raise train.micro_batch = 1"), std::string::npos);
}

TEST(RunPlan, counts_the_flops_of_a_step_alike_for_any_number_of_ranks) {
  const Config config = configuration("gpt2-124m");
  const double one = make_run_plan(config, 1, 0, 1, 0).flops_per_step;
  EXPECT_EQ(make_run_plan(config, 4, 2, 1, 0).flops_per_step, one);
  // 6 N T with N the parameters of products (all but positions), plus attention.
  const double products = 6.0 * (124439808 - 1024 * 768) * 512 * 1024;
  EXPECT_GT(one, products);
  EXPECT_LT(one, 1.2 * products);
}

TEST(RunPlan, refuses_more_ranks_than_shards_when_invariant) {
  Config config = small_run::config();
  EXPECT_EQ(refusal(config, 8), "none");
  EXPECT_EQ(refusal(config, 9),
            "9 ranks are more than train.shards = 8: start fewer ranks, or raise train.shards for a new run");
}

TEST(RunPlan, deals_out_micro_batches_to_any_number_of_ranks_when_fast) {
  Config config = small_run::config();
  config.train.reduction = Reduction::fast;
  for (const int ranks : {1, 2, 3, 5, 8}) {
    int dealt = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const RunPlan plan = make_run_plan(config, ranks, rank, 1, 0);
      EXPECT_EQ(plan.division.leaves, ranks);
      EXPECT_EQ(plan.own_leaves(), (LeafRange{rank, rank + 1}));
      EXPECT_EQ(plan.division.micro_batches_of(rank).begin, dealt);
      EXPECT_EQ(plan.own_micro_batches(), 8 / ranks + (rank < 8 % ranks ? 1 : 0));
      EXPECT_EQ(plan.flops_per_step, make_run_plan(config, 1, 0, 1, 0).flops_per_step);
      dealt += plan.own_micro_batches();
    }
    EXPECT_EQ(dealt, 8);
  }
}

TEST(RunPlan, refuses_more_ranks_than_there_is_work_for_with_a_remedy_that_works) {
  Config config = small_run::config();
  config.train.reduction = Reduction::fast;
  EXPECT_EQ(
      refusal(config, 9),
      "9 ranks are more than the train.batch = 8 sequences of a step: start at most 8, or a new run with a "
      "larger train.batch");
  config.train.micro_batch = 2;
  EXPECT_EQ(
      refusal(config, 5),
      "5 ranks are more than the 4 micro-batches of a step (train.batch = 8 in train.micro_batch = 2): set "
      "train.micro_batch = 0, which follows the ranks");
  config.train.micro_batch = 0;
  EXPECT_EQ(refusal(for_ranks(config, 5), 5), "none");
}

}  // namespace
}  // namespace muster
