// The order of a step, and that of every configuration that comes with Muster, as text.
#include "trainer/plan/step_schedule.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "core/file.hpp"
#include "tests/trainer/small_run.hpp"
#include "trainer/config/read.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/plan/schedule_text.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

const std::string dumps = "tests/trainer/plan/dumps/";

template <class Entry>
std::vector<Entry> all_of(const StepSchedule& schedule) {
  std::vector<Entry> found;
  for (const StepEntry& entry : schedule.entries)
    if (const auto* one = std::get_if<Entry>(&entry)) found.push_back(*one);
  return found;
}

// Where the first entry stands for which `wanted` holds.
template <class Entry>
std::ptrdiff_t place_of(const StepSchedule& schedule, std::size_t bucket) {
  return std::ranges::find_if(schedule.entries,
                              [&](const StepEntry& entry) {
                                const auto* one = std::get_if<Entry>(&entry);
                                return one != nullptr && one->bucket == bucket;
                              }) -
         schedule.entries.begin();
}

Config several_buckets(std::int64_t sharding, Reduction reduction) {
  Config config = small_run::config();
  config.model.width = 64;
  config.model.vocabulary = 103000;
  config.train.sharding = sharding;
  config.train.reduction = reduction;
  return config;
}

class StepSchedules : public testing::TestWithParam<std::tuple<int, std::int64_t, Reduction>> {};

// Each micro-batch of a rank runs all kernels once, in order; each bucket is summed, updated and known to all, in order.
TEST_P(StepSchedules, do_everything_once_and_nothing_before_its_time) {
  const auto& [ranks, sharding, reduction] = GetParam();
  std::set<int> taken;
  for (int rank = 0; rank < ranks; ++rank) {
    const RunPlan plan = make_run_plan(several_buckets(sharding, reduction), ranks, rank, 1, 0);
    ASSERT_GE(plan.buckets.size(), 2u);
    std::map<int, std::size_t> kernels;  // run so far, by micro-batch
    std::map<int, bool> accumulates;     // by leaf: what the next micro-batch must do
    for (const entry::RunKernels& run : all_of<entry::RunKernels>(plan.schedule)) {
      EXPECT_EQ(run.begin, kernels[run.micro_batch]);
      EXPECT_LT(run.begin, run.end);
      const bool first = run.begin == 0;
      EXPECT_EQ(taken.insert(run.micro_batch).second, first) << run.micro_batch;
      EXPECT_EQ(run.accumulate, accumulates[run.leaf]);
      kernels[run.micro_batch] = run.end;
      if (run.end == plan.training.steps.size()) accumulates[run.leaf] = true;
    }
    for (const auto& [micro_batch, end] : kernels) EXPECT_EQ(end, plan.training.steps.size());
    EXPECT_EQ(all_of<entry::TakeBatch>(plan.schedule).size(), kernels.size());
    EXPECT_EQ(all_of<entry::Report>(plan.schedule).size(), kernels.size());
    for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
      const auto sum = place_of<entry::FinishSum>(plan.schedule, b);
      const auto squares = place_of<entry::Squares>(plan.schedule, b);
      const auto update = place_of<entry::Update>(plan.schedule, b);
      const auto end = std::ssize(plan.schedule.entries);
      EXPECT_LT(place_of<entry::Receive>(plan.schedule, b), sum);
      EXPECT_LT(sum, squares);
      EXPECT_LT(squares, update);
      EXPECT_LT(update, end);
      if (ranks == 1) continue;
      EXPECT_LT(place_of<entry::Send>(plan.schedule, b), sum);
      const auto gather = place_of<entry::Gather>(plan.schedule, b);
      const auto share = place_of<entry::ShareGradients>(plan.schedule, b);
      const bool ordered = sharding == 1 ? update < gather && gather < end && share == end
                                         : squares < share && share < update && gather == end;
      EXPECT_TRUE(ordered) << b;
    }
  }
  EXPECT_EQ(std::ssize(taken),
            make_run_plan(several_buckets(1, reduction), ranks, 0, 1, 0).division.micro_batches);
}

INSTANTIATE_TEST_SUITE_P(OfRanks, StepSchedules,
                         testing::Combine(testing::Values(1, 2, 3), testing::Values(0, 1),
                                          testing::Values(Reduction::fast, Reduction::invariant)),
                         [](const auto& test) {
                           return fmt::format("{}_ranks_sharding_{}_{}", std::get<0>(test.param),
                                              std::get<1>(test.param), spelling(std::get<2>(test.param)));
                         });

TEST(StepSchedule, of_one_rank_sends_nothing) {
  for (const StepEntry& entry :
       make_run_plan(several_buckets(1, Reduction::fast), 1, 0, 1, 0).schedule.entries)
    std::visit([](const auto& e) { EXPECT_FALSE(requires { e.bytes; }) << name_of(e); }, entry);
}

// A configuration's plan on GPUs, which does not depend on the machine that makes it.
std::string dump_of(const Config& told) {
  std::string text;
  for (const int ranks : {1, 2, 3}) {
    const RunPlan plan = make_run_plan(for_ranks(told, ranks), ranks, 0, 1, 0, DeviceKind::cuda, true);
    if (ranks == 1)
      text += fmt::format("parameters {}, kernels {}, buckets {} of up to {} elements\n",
                          plan.parameters().logical_elements(), plan.training.steps.size(),
                          plan.buckets.size(), bucket_elements);
    text +=
        fmt::format("\nrank 0 of {}\narena {} bytes for a largest live set of {}, evaluation {}\n", ranks,
                    plan.training.arena_bytes, plan.training.largest_live_bytes, plan.evaluation.arena_bytes);
    for (std::size_t k = 0; k < memory_kinds; ++k)
      if (plan.memory[k] > 0)
        text += fmt::format("{} {} bytes\n", name_of(static_cast<MemoryKind>(k)), plan.memory[k]);
    for (const std::string& line : describe_steps(plan)) text += line + "\n";
  }
  return text;
}

// A configuration that comes with Muster; of the smallest also other ways to divide a step.
struct Dumped {
  std::string name, config;
  std::vector<Override> overrides = {};
};
const std::vector<Dumped> all_dumped = {
    {"gpt2-124m", "gpt2-124m"},
    {"llama-0.5b", "llama-0.5b"},
    {"llama-1.5b", "llama-1.5b"},
    {"quickstart", "quickstart", {{"model.vocabulary", "257"}}},
    {"tiny", "tiny"},
    {"tiny-invariant", "tiny", {{"train.reduction", "invariant"}}},
    {"tiny-whole-sgd",
     "tiny",
     {{"train.sharding", "0"}, {"optimizer.kind", "sgd"}, {"run.precision", "bf16"}}},
};

class Dumps : public testing::TestWithParam<Dumped> {};

TEST_P(Dumps, tell_the_plan_that_is_made_today) {
  const auto& [name, config, overrides] = GetParam();
  const std::string today = dump_of(read_config("configs/" + config + ".toml", overrides));
  EXPECT_LT(std::ranges::count(today, '\n'), 200) << "a dump is to be read";
  const std::string path = dumps + name + ".txt";
  if (std::getenv("MUSTER_WRITE_DUMPS") != nullptr) {
    write_text_atomically(path, today);
    return;
  }
  EXPECT_EQ(fs::exists(path) ? read_text(path) : "", today)
      << "The plan of a step has changed. If it was to, write the dumps anew and look at what git shows:\n"
         "MUSTER_WRITE_DUMPS=1 build/release/tests/trainer_tests --gtest_filter='*Dumps*'";
}

INSTANTIATE_TEST_SUITE_P(Of, Dumps, testing::ValuesIn(all_dumped), [](const auto& test) {
  std::string name = test.param.name;
  std::ranges::replace_if(
      name, [](char c) { return c == '-' || c == '.'; }, '_');
  return name;
});

TEST(DumpsFolder, holds_one_of_each_configuration_and_nothing_old) {
  std::set<std::string> there, wanted, configs, dumped;
  for (const auto& file : fs::directory_iterator(dumps)) there.insert(file.path().stem().string());
  for (const auto& file : fs::directory_iterator("configs")) configs.insert(file.path().stem().string());
  for (const Dumped& each : all_dumped) {
    wanted.insert(each.name);
    dumped.insert(each.config);
  }
  EXPECT_EQ(there, wanted);
  EXPECT_EQ(dumped, configs);
}

}  // namespace
}  // namespace muster
