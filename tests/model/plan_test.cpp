// Plans: nothing overlaps what is still needed, and little is wasted.

#include "model/graph/plan.hpp"

#include <gtest/gtest.h>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "core/philox.hpp"
#include "model/graph/arena.hpp"
#include "tests/model/plan_check.hpp"
#include "tests/model/small_model.hpp"

namespace muster {
namespace {

using small_model::Memory;

std::vector<Block> random_blocks(std::uint32_t seed) {
  auto random = [seed, n = std::uint32_t{0}](std::uint32_t bound) mutable {
    return philox({n++, seed, 0, 0}, 11)[0] % bound;
  };
  std::vector<Block> blocks(1 + random(50));
  for (Block& block : blocks) {
    block.bytes = random(8) == 0 ? 0 : 1 + random(40000);
    block.first = static_cast<std::int32_t>(random(30));
    block.last = block.first + static_cast<std::int32_t>(random(12));
  }
  return blocks;
}

std::uint64_t rounded(std::uint64_t bytes) {
  return (bytes + arena_alignment - 1) / arena_alignment * arena_alignment;
}

TEST(Arena, blocks_that_live_at_once_never_overlap) {
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    const std::vector<Block> blocks = random_blocks(seed);
    const ArenaLayout layout = lay_out(blocks);
    ASSERT_EQ(layout.offsets.size(), blocks.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      ASSERT_EQ(layout.offsets[i] % arena_alignment, 0u);
      ASSERT_LE(layout.offsets[i] + blocks[i].bytes, layout.bytes);
      for (std::size_t j = 0; j < i; ++j) {
        const bool at_once = blocks[i].first <= blocks[j].last && blocks[j].first <= blocks[i].last;
        const bool overlap = layout.offsets[i] < layout.offsets[j] + blocks[j].bytes &&
                             layout.offsets[j] < layout.offsets[i] + blocks[i].bytes;
        ASSERT_FALSE(at_once && overlap) << "blocks " << j << " and " << i << " of seed " << seed;
      }
    }
  }
}

TEST(Arena, knows_the_most_that_lives_at_once) {
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    const std::vector<Block> blocks = random_blocks(seed);
    const ArenaLayout layout = lay_out(blocks);
    std::uint64_t most = 0;
    for (std::int32_t step = 0; step < 50; ++step) {
      std::uint64_t live = 0;
      for (const Block& block : blocks)
        if (block.first <= step && step <= block.last) live += rounded(block.bytes);
      most = std::max(most, live);
    }
    ASSERT_EQ(layout.largest_live_bytes, most) << "seed " << seed;
    ASSERT_GE(layout.bytes, most);
  }
}

TEST(Arena, of_nothing_takes_nothing) {
  EXPECT_EQ(lay_out({}).bytes, 0u);
  EXPECT_EQ(lay_out(std::vector<Block>{{0, 0, 3}, {0, 1, 2}}).bytes, 0u);
}

TEST(Arena, blocks_after_each_other_share_their_place) {
  const std::vector<Block> blocks = {{4096, 0, 1}, {4096, 2, 3}, {4096, 4, 5}};
  EXPECT_EQ(lay_out(blocks).bytes, 4096u);
}

using Variant = std::tuple<Family, Precision, Recompute>;

class Plans : public testing::TestWithParam<Variant> {
 protected:
  ModelConfig model() const { return small_model::config(std::get<0>(GetParam())); }
  Plan plan() const {
    const auto& [family, precision, recompute] = GetParam();
    return make_plan(LanguageModel(model()).training(small_model::shape, precision, recompute), cpu_kernels(),
                     thread_count());
  }
  std::map<std::string, std::vector<std::byte>> outcome_of(const Plan& plan) const {
    Memory memory(plan);
    for (std::uint32_t k = 0; k < 2; ++k) {
      memory.fill_training(model());
      memory.run({.seed = 5, .step = 4, .first_slot = 2 * k}, k > 0);
    }
    return memory.outcome();
  }
};

// Every value and every workspace gets a place of its own, so nothing is ever overwritten.
Plan with_nothing_shared(Plan plan) {
  plan.arena_bytes = 0;
  const auto take = [&](std::uint64_t bytes) {
    const std::uint64_t offset = plan.arena_bytes;
    plan.arena_bytes += rounded(bytes);
    return offset;
  };
  for (std::size_t v = 0; v < plan.places.size(); ++v)
    if (plan.places[v].space == Place::Space::arena)
      plan.places[v].offset = take(plan.graph.values[v].type.bytes());
  for (PlanStep& step : plan.steps)
    if (step.workspace_bytes > 0) step.workspace_offset = take(step.workspace_bytes);
  plan.scalars_offset = take(sizeof(StepScalars));
  return plan;
}

TEST_P(Plans, nothing_overlaps_what_is_still_needed) {
  EXPECT_EQ(plan_check::faults(plan()), std::vector<std::string>());
}

TEST_P(Plans, sharing_memory_changes_no_bit) {
  const Plan shared = plan(), apart = with_nothing_shared(plan());
  EXPECT_LT(2 * shared.arena_bytes, apart.arena_bytes);
  EXPECT_EQ(outcome_of(shared), outcome_of(apart));
}

TEST_P(Plans, some_values_take_the_place_of_what_they_are_made_of) {
  const Plan p = plan();
  std::size_t in_place = 0;
  for (const Node& node : p.graph.nodes)
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const int i = node.op->may_overwrite(static_cast<int>(o));
      if (i < 0 || !node.inputs[static_cast<std::size_t>(i)]) continue;
      const Place from = p.places[static_cast<std::size_t>(node.inputs[static_cast<std::size_t>(i)].index)],
                  to = p.places[static_cast<std::size_t>(node.outputs[o].index)];
      in_place += from.space == Place::Space::arena && to.space == from.space && to.offset == from.offset;
    }
  EXPECT_GT(in_place, 0u);
}

TEST_P(Plans, what_outlives_the_plan_lies_in_spaces_of_its_own) {
  const auto& [family, precision, recompute] = GetParam();
  const Plan p = plan();
  std::set<std::uint64_t> offsets;
  for (const ParameterUse& parameter : p.graph.parameters) {
    const Place weight = p.places[static_cast<std::size_t>(parameter.value.index)],
                gradient = p.places[static_cast<std::size_t>(parameter.gradient.index)];
    const bool copied = precision == Precision::bf16 && p.graph.type(parameter.value).shape.size() > 1;
    EXPECT_EQ(weight.space, copied ? Place::Space::compute : Place::Space::master);
    EXPECT_EQ(gradient.space, Place::Space::gradient);
    EXPECT_EQ(weight.offset / (copied ? 2 : 4), gradient.offset / 4);
    EXPECT_EQ(gradient.offset % (4 * flat_block), 0u);
    EXPECT_TRUE(offsets.insert(gradient.offset).second);
  }
}

// The next micro-batch starts on whatever this one left in the arena.
TEST_P(Plans, results_do_not_depend_on_what_the_arena_held) {
  const Plan p = plan();
  Memory memory(p);
  const auto run = [&] {
    memory.fill_training(model());
    memory.run({.seed = 5, .step = 4});
    return memory.outcome();
  };
  const auto first = run();
  EXPECT_EQ(run(), first);
}

std::string name_of_variant(const testing::TestParamInfo<Variant>& test) {
  const auto& [family, precision, recompute] = test.param;
  return std::string(family == Family::gpt ? "gpt" : "llama") +
         (precision == Precision::f32 ? "_f32_" : "_bf16_") +
         std::string(spellings(recompute)[static_cast<std::size_t>(recompute)]);
}

INSTANTIATE_TEST_SUITE_P(Families, Plans,
                         testing::Combine(testing::Values(Family::gpt, Family::llama),
                                          testing::Values(Precision::f32, Precision::bf16),
                                          testing::Values(Recompute::none, Recompute::norms,
                                                          Recompute::block)),
                         name_of_variant);

TEST(Plan, more_threads_may_take_more_workspace_and_change_nothing_else) {
  const ModelConfig model = small_model::config(Family::gpt);
  const auto plan = [&](int threads) {
    return make_plan(LanguageModel(model).training(small_model::shape, Precision::f32, Recompute::none),
                     cpu_kernels(), threads);
  };
  const Plan one = plan(1), eight = plan(8);
  EXPECT_LE(one.arena_bytes, eight.arena_bytes);
  EXPECT_EQ(one.matrix_flops, eight.matrix_flops);
  EXPECT_EQ(plan_check::faults(eight), std::vector<std::string>());
}

// Of what is multiplied and added, 2 each: a block's products 4 C^2 + 2 C F a row, the head's C V, and causal
// attention T C (half of two products); all of it twice again in backward. What backward computes again, the
// scores among it, does not count.
TEST(Plan, counts_the_flops_of_products_and_attention) {
  ModelConfig model = small_model::config(Family::gpt);
  model.vocabulary = 256;
  const Plan plan = make_plan(LanguageModel(model).training({2, 24, 0}, Precision::f32, Recompute::block),
                              cpu_kernels(), thread_count());
  const double rows = 2 * 24, t = 24, c = 48, f = 112, layers = 3, v = 256;
  EXPECT_EQ(plan.matrix_flops, 3 * 2 * rows * (layers * (4 * c * c + 2 * c * f + t * c) + c * v));
}

TEST(Plan, finds_inputs_results_and_states_by_name) {
  const ModelConfig model = small_model::config(Family::llama);
  const Plan plan = make_plan(LanguageModel(model).generation({1, 1, 0}, Precision::f32, 16), cpu_kernels(),
                              thread_count());
  EXPECT_EQ(plan.graph[plan.find("tokens")].role, Role::input);
  EXPECT_EQ(plan.graph[plan.find("logits")].role, Role::result);
  EXPECT_EQ(plan.graph[plan.find("block.1.cache")].role, Role::state);
  EXPECT_THROW(plan.find("embedding"), Defect);  // of an activation nothing is left after the plan ran
  EXPECT_THROW(plan.find("loss"), Defect);
  // Keys and values of three layers, each on its own pages.
  EXPECT_EQ(plan.state_bytes, 3 * rounded(16 * 2 * 2 * 12 * 4));
}

// Its workspaces could be too small.
TEST(Plan, refuses_to_run_on_other_threads_than_it_was_made_for) {
  const ModelConfig model = small_model::config(Family::gpt);
  const Plan plan = make_plan(
      LanguageModel(model).training(small_model::shape, Precision::f32, Recompute::none), cpu_kernels(), 2);
  std::thread([&] {
    Memory memory(plan);
    memory.fill_training(model);
    for (const int threads : {1, 3}) {
      set_thread_count(threads);
      EXPECT_THROW(memory.run(), Defect);
    }
    set_thread_count(2);
    EXPECT_NO_THROW(memory.run());
  }).join();
}

TEST(Plan, refuses_a_backend_that_lacks_a_kernel) {
  const ModelConfig model = small_model::config(Family::llama);
  KernelTable kernels = cpu_kernels();
  kernels.erase("swiglu");
  EXPECT_THROW(make_plan(LanguageModel(model).evaluation(small_model::shape, Precision::f32), kernels, 1),
               Defect);
}

}  // namespace
}  // namespace muster
