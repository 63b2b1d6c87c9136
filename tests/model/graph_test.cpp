// Graphs: what a builder refuses, who writes each gradient and when, and what is computed again.

#include "model/graph/graph.hpp"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/parallel.hpp"
#include "model/graph/builder.hpp"
#include "model/graph/differentiate.hpp"
#include "model/ops/cross_entropy.hpp"
#include "model/ops/dropout.hpp"
#include "model/ops/embedding.hpp"
#include "model/ops/linear.hpp"
#include "model/ops/norm.hpp"
#include "tests/model/small_model.hpp"

namespace muster {
namespace {

using small_model::Memory;

Graph training_graph(Family family, bool tied, Recompute recompute, Precision precision = Precision::f32) {
  return LanguageModel(small_model::config(family, tied)).training(small_model::shape, precision, recompute);
}

OpPtr drop() { return std::make_shared<Dropout>(0.5f, 1); }

// What a builder says to a mistake, without file and line.
template <class Body>
std::string defect_of(Body&& body) {
  try {
    body();
  } catch (const Defect& defect) {
    const std::string message = defect.what();
    return message.substr(message.find(": ") + 2);
  }
  return "none";
}

TEST(Builder, scopes_name_values_and_end) {
  Builder b = Builder::declaring(std::make_shared<ParameterSpace>(), Precision::f32, true);
  const ValueId x = b.input("x", {{2, 4}, DType::f32});
  {
    const Builder::Scope block(b, "block.3", 3);
    const Builder::Scope attention(b, "attention");
    EXPECT_EQ(b.scoped("dropout"), "block.3.attention.dropout");
    b.apply_one(drop(), {x}, "dropout");
  }
  EXPECT_EQ(b.scoped("dropout"), "dropout");
  b.apply_one(drop(), {x}, "dropout");
  const Graph graph = std::move(b).finish();
  ASSERT_EQ(graph.nodes.size(), 2u);
  EXPECT_EQ(graph[graph.nodes[0].outputs[0]].name, "block.3.attention.dropout");
  EXPECT_EQ(graph.nodes[0].region, 3);
  EXPECT_EQ(graph.nodes[0].random_key, fnv1a("block.3.attention.dropout"));
  EXPECT_EQ(graph.nodes[1].region, -1);
}

TEST(Builder, the_same_name_is_the_same_parameter) {
  Builder b = Builder::declaring(std::make_shared<ParameterSpace>(), Precision::bf16, true);
  const ValueId first = b.parameter("table", {8, 4}, {}), again = b.parameter("table", {8, 4}, {});
  EXPECT_EQ(first, again);
  const Builder::Scope other(b, "decoder");
  EXPECT_NE(b.parameter("table", {8, 4}, {}), first);
}

TEST(Builder, graphs_of_one_model_share_its_parameters_and_declare_no_more) {
  const auto space = std::make_shared<ParameterSpace>();
  {
    Builder b = Builder::declaring(space, Precision::f32, true);
    b.parameter("a", {5000}, {});
    b.parameter("b", {8, 4}, {}, 7);
  }
  Builder b(space, Precision::f32, false);
  const ValueId second = b.parameter("b", {8, 4}, {});
  EXPECT_EQ(defect_of([&] {
              b.parameter("b", {4, 8}, {});
            }),
            "a parameter has one shape in all graphs of a model");
  EXPECT_EQ(defect_of([&] { b.parameter("c", {8}, {}); }), "the model has no parameter named c");
  const Graph graph = std::move(b).finish();
  EXPECT_EQ(graph.space, space);
  ASSERT_EQ(graph.parameters.size(), 2u);
  EXPECT_FALSE(graph.parameters[0].value);  // not read here
  EXPECT_EQ(graph.parameters[1].value, second);
  EXPECT_EQ((*space)[1].offset, 2 * flat_block);
  EXPECT_EQ((*space)[1].logical_shape(), (Shape{7, 4}));
  EXPECT_EQ(space->elements(), 3 * flat_block);
  EXPECT_EQ(space->logical_elements(), 5000 + 28);
}

TEST(Builder, matrices_take_the_compute_type_and_vectors_stay_f32) {
  Builder b = Builder::declaring(std::make_shared<ParameterSpace>(), Precision::bf16, true);
  EXPECT_EQ(b.type(b.parameter("weight", {8, 4}, {})).dtype, DType::bf16);
  EXPECT_EQ(b.type(b.parameter("bias", {8}, {})).dtype, DType::f32);
}

TEST(Builder, a_name_used_twice_in_a_scope_is_refused) {
  Builder b = Builder::declaring(std::make_shared<ParameterSpace>(), Precision::f32, true);
  const ValueId x = b.input("x", {{2, 4}, DType::f32});
  b.apply_one(drop(), {x}, "dropout");
  EXPECT_EQ(defect_of([&] { b.apply_one(drop(), {x}, "dropout"); }),
            "names of nodes are unique in their scope");
}

TEST(Builder, two_names_with_one_hash_are_refused) {
  static_assert(fnv1a("costarring") == fnv1a("liquid"));
  Builder b = Builder::declaring(std::make_shared<ParameterSpace>(), Precision::f32, true);
  const ValueId x = b.input("x", {{2, 4}, DType::f32});
  b.apply_one(drop(), {x}, "costarring");
  EXPECT_EQ(defect_of([&] { b.apply_one(drop(), {x}, "liquid"); }),
            "the names of two nodes share a hash: rename one");
}

TEST(Differentiation, refuses_a_parameter_that_takes_no_part_in_the_loss) {
  Builder b = Builder::declaring(std::make_shared<ParameterSpace>(), Precision::f32, true);
  const ValueId x = b.input("x", {{4, 8}, DType::f32}), targets = b.input("targets", {{4}, DType::i32});
  const ValueId table = b.parameter("table", {16, 8}, {});
  b.parameter("forgotten", {16, 8}, {});
  const ValueId loss =
      b.apply_one(std::make_shared<LinearCrossEntropy>(16, true), {x, table, targets}, "loss");
  b.mark_result(loss, "loss");
  Graph graph = std::move(b).finish();
  EXPECT_EQ(defect_of([&] { differentiate(graph, loss, Recompute::none); }),
            "every parameter of the graph takes part in the loss");
}

// The table is read by the embedding, whose output goes two ways that meet in a norm.
TEST(Differentiation, a_value_used_twice_gets_the_sum_of_its_gradients) {
  Builder b = Builder::declaring(std::make_shared<ParameterSpace>(), Precision::f32, true);
  constexpr std::int64_t rows = 6, width = 16;
  const TensorType ids{{rows}, DType::i32};
  const ValueId tokens = b.input("tokens", ids), targets = b.input("targets", ids);
  const ValueId x = b.apply_one(std::make_shared<Embedding>(DType::f32),
                                {tokens, b.parameter("table", {8, width}, {})}, "embedding");
  const auto linear = [&](const std::string& name) {
    return b.apply_one(std::make_shared<Linear>(Activation::none, true),
                       {x, b.parameter(name + ".weight", {width, width}, {}), ValueId()}, name);
  };
  const ValueId left = linear("left"), right = linear("right");
  const ValueId scale = b.parameter("norm.weight", {width}, {Init::Kind::constant, 1});
  const ValueId y = b.apply(std::make_shared<ResidualNorm>(NormKind::rms, 1e-5f, DType::f32),
                            {left, right, scale, ValueId()}, "norm")[0];
  const ValueId loss = b.apply_one(std::make_shared<LinearCrossEntropy>(32, true),
                                   {y, b.parameter("head", {32, width}, {}), targets}, "loss");
  b.mark_result(loss, "loss");
  Graph graph = std::move(b).finish();
  differentiate(graph, loss, Recompute::none);
  const Plan plan = make_plan(std::move(graph), cpu_kernels(), thread_count());
  ASSERT_EQ(plan.graph[plan.graph.parameters[0].value].name, "table");

  Memory memory(plan);
  const auto evaluate = [&] {
    memory.fill("tokens", small_model::integers("tokens", rows, 8));
    memory.fill("targets", small_model::integers("targets", rows, 32));
    memory.run();
    return memory.loss();
  };
  evaluate();
  const std::vector<float> gradient(memory.gradient(0).begin(), memory.gradient(0).end());
  double squared = 0;
  for (const float g : gradient) squared += static_cast<double>(g) * g;
  // Along the gradient the loss rises by its norm. The step balances the rounding of f32 losses, about 1e-6,
  // with the third derivative; either share alone would be off by half.
  const double step = 1e-2 / std::sqrt(squared);
  const std::vector<float> before(memory.weights(0).begin(), memory.weights(0).end());
  const auto at = [&](double distance) {
    for (std::size_t i = 0; i < before.size(); ++i)
      memory.weights(0)[i] = before[i] + static_cast<float>(distance * gradient[i]);
    return evaluate();
  };
  const double slope = (at(step) - at(-step)) / (2 * step);
  EXPECT_NEAR(slope / squared, 1, 0.01);
}

using Variant = std::tuple<Family, bool, Recompute>;

class Gradients : public testing::TestWithParam<Variant> {
 protected:
  Graph graph() const {
    const auto& [family, tied, recompute] = GetParam();
    return training_graph(family, tied, recompute);
  }
};

TEST_P(Gradients, each_is_written_first_and_added_to_afterwards) {
  const Graph g = graph();
  std::set<ValueId> written;
  for (const Node& node : g.nodes)
    for (const ValueId output : node.outputs) {
      if (g[output].role != Role::gradient) continue;
      EXPECT_EQ(written.contains(output), node.accumulate) << g[output].name << " by " << node.op->name();
      written.insert(output);
    }
  EXPECT_EQ(written.size(), g.parameters.size());
  for (const ParameterUse& parameter : g.parameters) {
    EXPECT_TRUE(written.contains(parameter.gradient)) << g[parameter.value].name;
    EXPECT_EQ(g.type(parameter.gradient), (TensorType{g.type(parameter.value).shape, DType::f32}));
  }
}

TEST_P(Gradients, a_table_gets_its_product_as_the_head_before_its_rows_as_the_embedding) {
  const Graph g = graph();
  std::map<std::string, std::vector<std::string>> writers;
  for (const Node& node : g.nodes)
    for (const ValueId output : node.outputs)
      if (g[output].role == Role::gradient) writers[g[output].name].emplace_back(node.op->name());
  using Names = std::vector<std::string>;
  if (std::get<1>(GetParam())) {
    EXPECT_EQ(writers["gradient.embedding.token.weight"],
              (Names{"linear_cross_entropy", "embedding_gradient"}));
  } else {
    EXPECT_EQ(writers["gradient.head.weight"], Names{"linear_cross_entropy"});
    EXPECT_EQ(writers["gradient.embedding.token.weight"], Names{"embedding_gradient"});
  }
}

TEST_P(Gradients, every_value_is_computed_before_it_is_read) {
  const Graph g = graph();
  std::set<ValueId> known;
  for (std::size_t v = 0; v < g.values.size(); ++v)
    if (g.values[v].role == Role::input || g.values[v].role == Role::parameter)
      known.insert({static_cast<std::int32_t>(v)});
  for (const Node& node : g.nodes) {
    for (const ValueId input : node.inputs)
      EXPECT_TRUE(!input || known.contains(input)) << node.op->name() << " reads " << g[input].name;
    known.insert(node.outputs.begin(), node.outputs.end());
  }
}

TEST_P(Gradients, each_is_announced_once_and_nobody_writes_it_afterwards) {
  const Plan plan = make_plan(graph(), cpu_kernels(), thread_count());
  std::set<std::int32_t> announced;
  for (const PlanStep& step : plan.steps) {
    for (const ValueId output : plan.node(step).outputs)
      EXPECT_TRUE(plan.graph[output].role != Role::gradient ||
                  !announced.contains(plan.graph[output].parameter))
          << plan.graph[output].name;
    for (const std::int32_t parameter : step.final_gradients)
      EXPECT_TRUE(announced.insert(parameter).second) << parameter;
  }
  EXPECT_EQ(announced.size(), plan.graph.parameters.size());
}

// A mask is drawn again in backward and in what is computed again: all three with one key.
TEST_P(Gradients, backward_and_recompute_draw_the_random_numbers_of_their_forward_node) {
  const Graph g = graph();
  std::set<std::uint32_t> keys;
  for (const Node& node : g.nodes)
    EXPECT_TRUE(node.phase != Phase::forward || keys.insert(node.random_key).second);
  std::size_t drawn_again = 0;
  for (const Node& node : g.nodes)
    if (node.phase != Phase::forward) {
      EXPECT_TRUE(keys.contains(node.random_key)) << node.op->name();
      drawn_again += node.op->name().starts_with("dropout");
    }
  EXPECT_GE(drawn_again, 6u);  // two a block
}

TEST_P(Gradients, only_the_policy_that_asks_for_it_computes_forward_nodes_again) {
  const auto& [family, tied, recompute] = GetParam();
  const Graph g = graph();
  std::size_t again = 0;
  for (const Node& node : g.nodes) again += node.phase == Phase::recompute;
  // Two norms and an activation a block; what the loss reads is read before backward begins.
  constexpr std::size_t cheap = 3 * (2 + 1);
  switch (recompute) {
    case Recompute::none:
      EXPECT_EQ(again, 0u);
      break;
    case Recompute::norms:
      EXPECT_EQ(again, cheap);
      break;
    case Recompute::block:  // two norms, qkv, attention, projection, and what leads to the down projection
      EXPECT_GE(again, std::size_t{3 * 7});
      break;
  }
}

std::string name_of_variant(const testing::TestParamInfo<Variant>& test) {
  const auto& [family, tied, recompute] = test.param;
  return std::string(spellings(family)[static_cast<std::size_t>(family)]) + (tied ? "_tied_" : "_untied_") +
         std::string(spellings(recompute)[static_cast<std::size_t>(recompute)]);
}

INSTANTIATE_TEST_SUITE_P(Families, Gradients,
                         testing::Combine(testing::Values(Family::gpt, Family::llama), testing::Bool(),
                                          testing::Values(Recompute::none, Recompute::norms,
                                                          Recompute::block)),
                         name_of_variant);

class RecomputePolicy : public testing::TestWithParam<std::tuple<Family, Precision>> {};

TEST_P(RecomputePolicy, changes_no_bit_of_losses_and_gradients) {
  const auto& [family, precision] = GetParam();
  const ModelConfig model = small_model::config(family);
  const auto run = [&](Recompute recompute) {
    const Plan plan =
        make_plan(training_graph(family, true, recompute, precision), cpu_kernels(), thread_count());
    Memory memory(plan);
    // Two micro-batches, the second added to the first.
    for (std::uint32_t k = 0; k < 2; ++k) {
      memory.fill_training(model);
      memory.run({.seed = 5, .step = 4, .first_slot = 2 * k}, k > 0);
    }
    EXPECT_TRUE(std::isfinite(memory.loss()));
    return memory.outcome();
  };
  const auto kept = run(Recompute::none);
  EXPECT_EQ(run(Recompute::norms), kept);
  EXPECT_EQ(run(Recompute::block), kept);
}

TEST_P(RecomputePolicy, saves_memory_the_more_the_more_it_computes_again) {
  const auto& [family, precision] = GetParam();
  ModelConfig model = small_model::config(family);
  model.layers = 8;
  const auto arena = [&](Recompute recompute) {
    return make_plan(LanguageModel(model).training({2, 256, 0}, precision, recompute), cpu_kernels(),
                     thread_count())
        .arena_bytes;
  };
  const std::uint64_t none = arena(Recompute::none), norms = arena(Recompute::norms),
                      block = arena(Recompute::block);
  EXPECT_LT(norms, none);
  EXPECT_LT(block, norms);
  // Of a block only the border stays: less than half of eight layers' activations.
  EXPECT_LT(2 * block, none);
}

TEST_P(RecomputePolicy, costs_no_flops_that_count) {
  const auto& [family, precision] = GetParam();
  const auto flops = [&, family = family, precision = precision](Recompute recompute) {
    return make_plan(training_graph(family, true, recompute, precision), cpu_kernels(), thread_count())
        .matrix_flops;
  };
  EXPECT_EQ(flops(Recompute::block), flops(Recompute::none));
}

std::string name_of_policy_case(const testing::TestParamInfo<std::tuple<Family, Precision>>& test) {
  const auto& [family, precision] = test.param;
  return std::string(family == Family::gpt ? "gpt" : "llama") +
         (precision == Precision::f32 ? "_f32" : "_bf16");
}

INSTANTIATE_TEST_SUITE_P(Families, RecomputePolicy,
                         testing::Combine(testing::Values(Family::gpt, Family::llama),
                                          testing::Values(Precision::f32, Precision::bf16)),
                         name_of_policy_case);

}  // namespace
}  // namespace muster
