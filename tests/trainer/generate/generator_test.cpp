// Text from a trained model: the same as without a cache, also where the text is longer than the context.

#include "trainer/generate/generator.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <gtest/gtest.h>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "comm/threads/ranks.hpp"
#include "core/parallel.hpp"
#include "model/families/family.hpp"
#include "tests/data/scratch.hpp"
#include "tests/trainer/small_run.hpp"
#include "trainer/checkpoint/model_tensors.hpp"
#include "trainer/checkpoint/run_state.hpp"
#include "trainer/checkpoint/save.hpp"
#include "trainer/config/read.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

using Tokens = std::vector<std::int32_t>;

class Generation : public Scratch {
 protected:
  // A checkpoint of weights larger than fresh ones, so that the likeliest token depends on all before it.
  Config trained(Family family, Precision precision = Precision::f32, float factor = 6) {
    Config config = small_run::config(family);
    config.run.dir = path("run");
    config.run.precision = precision;
    config.model.kv_heads = family == Family::llama ? 1 : 2;
    config.model.tied = false;  // a tied head repeats the last token
    RunFolder(config.run.dir).create();
    run_ranks(1, [&](Communicator& comm) {
      const RunPlan plan = make_run_plan(config, 1, 0, thread_count(), 0);
      ModelState state(plan, config, machine_);
      state.initialise(plan, 4);
      for (float& weight : state.master.as<float>()) weight *= weight == 1.0f ? 1 : factor;
      CheckpointRequest request;
      request.folder = RunFolder(config.run.dir).checkpoints();
      request.step = 7;
      request.attempt = 1;
      RunState run;
      run.position.step = 7;
      run.config = to_toml(config);
      request.state = to_json(run, config);
      save_checkpoint(comm, request, slices(plan, state, {}));
    });
    return config;
  }

  // The likeliest token after `text`, which is read whole.
  std::int32_t likeliest_after(const Config& config, const Tokens& text) {
    const auto length = static_cast<std::int64_t>(text.size());
    const std::unique_ptr<Model> graphs = make_model(config.model);
    const Plan plan =
        make_plan(graphs->generation({1, length, 0}, config.run.precision, 0), cpu_kernels(), thread_count());
    const TrainedModel model(config, 7, graphs->parameters(), plan.arena_bytes, machine_);
    const Executor executor(plan, machine_.backend());
    Tokens positions(text.size());
    std::iota(positions.begin(), positions.end(), 0);
    const auto fill = [&](const char* name, const Tokens& values) {
      std::memcpy(executor.view(name, model.bindings()).data, values.data(), values.size() * 4);
    };
    fill("tokens", text);
    fill("positions", positions);
    fill("last", {static_cast<std::int32_t>(length - 1)});
    InlineStream stream;
    executor.run(stream, model.bindings(), {});
    const auto logits = executor.view("logits", model.bindings()).as<float>();
    return static_cast<std::int32_t>(std::max_element(logits, logits + config.model.vocabulary) - logits);
  }

  static Tokens prompt(std::int64_t length) {
    Tokens tokens;
    for (std::int64_t t = 0; t < length; ++t)
      tokens.push_back(static_cast<std::int32_t>(small_run::number(0, t) % 67));
    return tokens;
  }
  static Tokens generate(Generator& generator, Tokens tokens, std::int64_t count,
                         const Sampling& sampling = {.temperature = 0}) {
    generator.generate(tokens, count, sampling, [](std::int32_t) { return true; });
    return tokens;
  }

  MemoryAccount account_;
  Machine machine_{cpu_device(), account_};
};

TEST_F(Generation, of_the_likeliest_tokens_is_that_without_a_cache) {
  for (const Family family : {Family::gpt, Family::llama}) {
    const Config config = trained(family);
    Generator generator(config, {}, machine_);
    Tokens expected = prompt(5);
    while (expected.size() < 16) expected.push_back(likeliest_after(config, expected));
    const Tokens generated = generate(generator, prompt(5), 11);
    EXPECT_EQ(generated, expected);
    EXPECT_GT(std::set<std::int32_t>(generated.begin() + 5, generated.end()).size(), 2u) << "a dull model";
    std::filesystem::remove_all(config.run.dir);
  }
}

// When sixteen tokens fill the context, the newer eight are read again and it goes on from there.
TEST_F(Generation, goes_on_beyond_the_context_from_its_newer_half) {
  for (const Family family : {Family::gpt, Family::llama}) {
    const Config config = trained(family);
    Generator generator(config, {}, machine_);
    Tokens expected = prompt(12);
    std::size_t begin = 0;
    while (expected.size() < 40) {
      if (expected.size() - begin > 16) begin = expected.size() - 8;
      expected.push_back(likeliest_after(config, Tokens(expected.begin() + begin, expected.end())));
    }
    EXPECT_EQ(generate(generator, prompt(12), 28), expected);
    std::filesystem::remove_all(config.run.dir);
  }
}

TEST_F(Generation, reads_the_end_of_a_prompt_that_is_longer_than_the_context) {
  const Config config = trained(Family::gpt);
  Generator generator(config, {}, machine_);
  const Tokens long_prompt = prompt(50);
  const Tokens generated = generate(generator, long_prompt, 1);
  ASSERT_EQ(generated.size(), 51u);
  EXPECT_TRUE(std::equal(long_prompt.begin(), long_prompt.end(), generated.begin()));
  EXPECT_EQ(generated.back(), likeliest_after(config, Tokens(long_prompt.end() - 16, long_prompt.end())));
}

TEST_F(Generation, does_not_depend_on_what_was_generated_before) {
  const Config config = trained(Family::llama, Precision::bf16);
  Generator generator(config, {}, machine_);
  const Tokens first = generate(generator, prompt(9), 20);
  generate(generator, prompt(3), 25);
  EXPECT_EQ(generate(generator, prompt(9), 20), first);
}

TEST_F(Generation, with_a_seed_gives_the_same_text_again_and_with_another_another) {
  const Config config = trained(Family::gpt);
  Generator generator(config, {}, machine_);
  const Sampling hot = {.temperature = 2, .seed = 1}, other = {.temperature = 2, .seed = 2};
  const Tokens text = generate(generator, prompt(4), 30, hot);
  EXPECT_EQ(generate(generator, prompt(4), 30, hot), text);
  EXPECT_NE(generate(generator, prompt(4), 30, other), text);
  for (const std::int32_t token : text) EXPECT_LT(token, config.model.vocabulary);  // no padding
}

TEST_F(Generation, ends_when_the_caller_has_enough) {
  const Config config = trained(Family::gpt);
  Generator generator(config, {}, machine_);
  Tokens tokens = prompt(4), seen;
  generator.generate(tokens, 100, {}, [&](std::int32_t token) {
    seen.push_back(token);
    return seen.size() < 3;
  });
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(tokens.size(), 7u);
  EXPECT_TRUE(std::equal(seen.begin(), seen.end(), tokens.begin() + 4));
}

TEST_F(Generation, tells_of_a_model_whose_logits_are_no_numbers) {
  const Config config = trained(Family::gpt, Precision::f32, std::numeric_limits<float>::infinity());
  Generator generator(config, {}, machine_);
  EXPECT_TRUE(tells(message_of([&] { generate(generator, prompt(4), 3); }),
                    {path("run"), "not finite", "--checkpoint"}));
}

// As a run with checkpoint.keep = 1 does beside a reader.
TEST(NewestModel, is_that_of_the_checkpoint_that_took_the_place_of_one_removed_while_it_was_read) {
  std::int64_t newest = 2;
  const auto load = [&](std::optional<std::int64_t> step) {
    if (*step < 6) newest = *step + 2;
    if (*step < 6) throw UserError("{} is gone: restore it", *step);
    return *step;
  };
  const auto latest = [&] { return std::optional(newest); };
  EXPECT_EQ(load_asked_or_newest({}, latest, load), 6);
  EXPECT_EQ(message_of([&] { load_asked_or_newest(2, latest, load); }), "2 is gone: restore it");
  newest = 2;
  EXPECT_EQ(message_of([&] {
              load_asked_or_newest({}, latest, [](std::optional<std::int64_t> step) -> int {
                throw UserError("{} is broken", *step);
              });
            }),
            "2 is broken");
}

TEST_F(Generation, needs_a_checkpoint) {
  Config config = trained(Family::gpt);
  EXPECT_TRUE(tells(message_of([&] { Generator(config, 8, machine_); }), {path("run"), "00000008"}));
  config.run.dir = path("other");
  EXPECT_TRUE(tells(message_of([&] { Generator(config, {}, machine_); }), {path("other"), "no complete"}));
}

TEST_F(Generation, refuses_the_checkpoint_of_another_model) {
  Config config = trained(Family::gpt);
  config.model.width = 64;
  EXPECT_TRUE(tells(message_of([&] { Generator(config, {}, machine_); }),
                    {"trained with model.width = 32", "says 64"}));
}

}  // namespace
}  // namespace muster
