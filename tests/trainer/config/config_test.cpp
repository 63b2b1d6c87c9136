#include "trainer/config/config.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <functional>
#include <gtest/gtest.h>
#include <limits>
#include <set>
#include <unistd.h>

#include "core/error.hpp"
#include "core/file.hpp"
#include "trainer/config/read.hpp"

namespace muster {
namespace {

// The message of the UserError that `action` throws; empty if it throws none.
std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return {};
}

std::string refusal_of_text(const std::string& text) {
  return refusal([&] { parse_config(text, "a.toml"); });
}

std::string refusal_of_override(const std::string& key, const std::string& value) {
  return refusal([&] {
    Config config;
    apply_overrides(config, std::vector<Override>{{key, value}});
  });
}

Config resolved(Config config = {}) {
  resolve(config);
  return config;
}

TEST(Config, a_file_overrides_the_defaults_and_leaves_the_rest) {
  const Config config = parse_config(R"(
[run]
seed = 7
precision = "bf16"
[optimizer]
lr = 1
betas = [0.8, 0.99]
[train]
reduction = "invariant"
)",
                                     "a.toml");
  EXPECT_EQ(config.run.seed, 7);
  EXPECT_EQ(config.run.precision, Precision::bf16);
  EXPECT_EQ(config.optimizer.lr, 1.0);
  EXPECT_EQ(config.optimizer.betas, (std::array{0.8, 0.99}));
  EXPECT_EQ(config.train.reduction, Reduction::invariant);
  EXPECT_EQ(config.train.steps, Config{}.train.steps);
}

TEST(Config, an_unknown_key_names_its_line_and_the_nearest_known_key) {
  EXPECT_EQ(refusal_of_text("[train]\nsteps = 3\nbach = 4\n"),
            "a.toml:3: unknown key train.bach; did you mean train.batch?");
  EXPECT_EQ(refusal_of_text("[trian]\nsteps = 3\n"),
            "a.toml:2: unknown key trian.steps; did you mean train.steps?");
  EXPECT_EQ(refusal_of_text("step = 3\n"), "a.toml:1: unknown key step; did you mean train.steps?");
  EXPECT_EQ(refusal_of_text("[foo]\n").substr(0, 25), "a.toml:1: unknown key foo");
  EXPECT_EQ(refusal_of_override("train.stepz", "3"),
            "command line: unknown key train.stepz; did you mean train.steps?");
}

TEST(Config, an_unknown_key_in_another_section_or_in_other_words_names_the_one_that_was_meant) {
  for (const auto& [written, meant] :
       std::vector<std::pair<std::string, std::string>>{{"train.lr", "optimizer.lr"},
                                                        {"train.weight_decy", "optimizer.weight_decay"},
                                                        {"train.learning_rate", "optimizer.lr"},
                                                        {"train.batch_size", "train.batch"},
                                                        {"model.n_layer", "model.layers"},
                                                        {"train.Seed", "run.seed"},
                                                        {"evals.every", "eval.every"},
                                                        {"checkpoints.every", "checkpoint.every"},
                                                        {"train.warm-up", "schedule.warmup"}})
    EXPECT_EQ(refusal_of_override(written, "1"),
              fmt::format("command line: unknown key {}; did you mean {}?", written, meant));
  EXPECT_EQ(refusal_of_override("train.frobnicate", "1"),
            "command line: unknown key train.frobnicate; muster train --help lists all");
}

// A run of before the key existed began documents with their first token.
TEST(Config, of_a_run_of_before_document_start_keeps_how_its_documents_began) {
  const auto start = [](const std::string& text) {
    return parse_resolved_config(text, "run/config.toml").data.document_start;
  };
  EXPECT_EQ(start("[data]\ndocuments = true\n"), DocumentStart::first_token);
  EXPECT_EQ(start("[data]\ndocuments = false\n"), DocumentStart::end_token);
  EXPECT_EQ(start("[data]\ndocuments = true\ndocument_start = \"end_token\"\n"), DocumentStart::end_token);
  EXPECT_EQ(parse_config("[data]\ndocuments = true\n", "a.toml").data.document_start,
            DocumentStart::end_token);
}

TEST(Config, a_wrong_type_names_the_key_and_what_it_expects) {
  EXPECT_EQ(refusal_of_text("[train]\nsteps = \"many\"\n"),
            "a.toml:2: train.steps = \"many\" will not do; it must be a whole number, from 1 to 2^31 - 1");
  EXPECT_EQ(refusal_of_text("[train]\nsteps = 1.5\n"),
            "a.toml:2: train.steps = 1.5 will not do; it must be a whole number, from 1 to 2^31 - 1");
  EXPECT_EQ(refusal_of_text("[model]\ntied = 1\n"),
            "a.toml:2: model.tied = 1 will not do; it must be true or false");
  EXPECT_EQ(refusal_of_text("[run]\nprecision = \"fp8\"\n"),
            "a.toml:2: run.precision = \"fp8\" will not do; it must be one of f32, bf16");
  EXPECT_EQ(
      refusal_of_text("[optimizer]\nbetas = [0.9]\n"),
      "a.toml:2: optimizer.betas = this list will not do; it must be two numbers, like [0.9, 0.95], each at "
      "least 0 and below 1 in f32");
  EXPECT_EQ(refusal_of_text("[run.seed]\nx = 1\n"),
            "a.toml:1: run.seed = this table will not do; it must be a whole number, at least 0");
  EXPECT_EQ(refusal_of_override("optimizer.lr", "3e-4x"),
            "command line: optimizer.lr = 3e-4x will not do; it must be a number, greater than 0 in f32");
}

TEST(Config, a_number_that_the_arithmetic_cannot_hold_is_refused) {
  for (const char* lr : {"0", "1e-46", "1e39", "nan"})
    EXPECT_NE(refusal_of_override("optimizer.lr", lr), "") << lr;
  EXPECT_NE(refusal_of_override("optimizer.betas", "[0.9, 0.99999999]"), "");
  Config config;
  apply_overrides(config,
                  std::vector<Override>{{"optimizer.lr", "1e-44"}, {"optimizer.betas", "[0.9, 0.9999999]"}});
  EXPECT_EQ(config.optimizer.lr, 1e-44);
}

TEST(Config, broken_toml_names_the_line) {
  EXPECT_EQ(refusal_of_text("[train]\nsteps = = 3\n").substr(0, 10), "a.toml:2: ");
  EXPECT_EQ(refusal_of_text("[train]\nsteps = 3\nsteps = 4\n").substr(0, 10), "a.toml:3: ");
}

TEST(Config, a_key_of_many_parts_is_refused_by_its_line) {
  std::string deep = "a";
  for (int i = 0; i < 200000; ++i) deep += i % 2 == 0 ? ".a" : " . \"a.a\"";
  const auto begins_with = [&](const std::string& before, const std::string& after, const char* place) {
    const std::string told = refusal_of_text(before + deep + after);
    EXPECT_EQ(told.find(place + std::string("a key of more than 17 parts")), 0u) << told;
  };
  begins_with("# \"\n[data]\n", " = 1\n", "a.toml:3: ");
  begins_with("run.dir = '\\'\n[", "]\n", "a.toml:2: ");
  begins_with("run.dir = \"\"\"\\\"\"\"\nb\"\"\"\n[", "]\n", "a.toml:3: ");
  begins_with("x = [\"\"\" \"\"\"\", {", " = 1}]\n", "a.toml:1: ");
  begins_with("[[data.source]]\nx = [{", " = 1}]\n", "a.toml:2: ");
}

TEST(Config, dots_in_texts_numbers_and_comments_join_no_keys) {
  const std::string dots = "../../../../../../../../../../../..";
  const Config config =
      parse_config("# " + dots + "\n[data]\n[[data.source]]\npath = '" + dots + "'\nweight = 0.5  # it's " +
                       dots + "\n[[data.source]]\npath = \"\\\"" + dots + "\"\n",
                   "a.toml");
  EXPECT_EQ(config.data.source.at(0).path, dots);
  EXPECT_EQ(config.data.source.at(1).path, "\"" + dots);
}

TEST(Config, numbers_outside_their_range_are_refused) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"train.steps", "0"},
                                                        {"train.steps", "-1"},
                                                        {"train.batch", "9999999999"},
                                                        {"train.shards", "6"},
                                                        {"train.sharding", "2"},
                                                        {"model.dropout", "1"},
                                                        {"optimizer.lr", "0"},
                                                        {"optimizer.lr", "nan"},
                                                        {"optimizer.lr", "inf"},
                                                        {"optimizer.betas", "0.9,1"},
                                                        {"schedule.final", "1.5"},
                                                        {"run.seed", "-1"}}) {
    EXPECT_NE(refusal_of_override(key, value).find(key + " = "), std::string::npos) << key << "=" << value;
  }
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"train.shards", "16"},
                                                        {"optimizer.clip", "0"},
                                                        {"optimizer.betas", "[0.9, 0.999]"},
                                                        {"run.seed", "0"}}) {
    EXPECT_EQ(refusal_of_override(key, value), "");
  }
}

TEST(Config, the_line_of_commands_yields_its_overrides_and_keeps_the_rest) {
  std::vector<std::string> arguments = {"a.toml",       "--train.steps=5", "--optimizer.lr",
                                        "1e-3",         "--run.fresh",     "--json",
                                        "--model.tied", "false",           "--data.path=x=y"};
  const auto overrides = take_overrides(arguments);
  EXPECT_EQ(arguments, (std::vector<std::string>{"a.toml", "--json"}));
  Config config;
  apply_overrides(config, overrides);
  EXPECT_EQ(config.train.steps, 5);
  EXPECT_EQ(config.optimizer.lr, 1e-3);
  EXPECT_TRUE(config.run.fresh);
  EXPECT_FALSE(config.model.tied);
  EXPECT_EQ(config.data.path, "x=y");

  std::vector<std::string> dangling = {"--train.steps"};
  EXPECT_EQ(refusal([&] { take_overrides(dangling); }),
            "command line: --train.steps has no value; write --train.steps=VALUE");
}

TEST(Config, zeroes_stand_for_what_follows_from_other_keys) {
  const Config gpt = resolved();
  EXPECT_EQ(gpt.model.kv_heads, gpt.model.heads);
  EXPECT_EQ(gpt.model.feed_forward, 4 * gpt.model.width);
  EXPECT_EQ(gpt.model.context, gpt.train.sequence);
  EXPECT_EQ(gpt.train.micro_batch, 0);  // follows the ranks
  EXPECT_EQ(for_ranks(gpt, 1).train.micro_batch, gpt.train.batch / gpt.train.shards);
  Config invariant;
  invariant.train.reduction = Reduction::invariant;
  EXPECT_EQ(resolved(invariant).train.micro_batch, gpt.train.batch / gpt.train.shards);
  EXPECT_TRUE(gpt.model.qkv_bias);

  Config llama;
  llama.model.family = Family::llama;
  llama.model.width = 4096;
  EXPECT_EQ(resolved(llama).model.feed_forward, 11008);  // LLaMA 7B, arXiv 2302.13971: 8/3 x 4096, rounded up
  EXPECT_FALSE(resolved(llama).model.qkv_bias);
  EXPECT_EQ(resolved(resolved(llama)), resolved(llama));
}

TEST(Config, the_micro_batch_of_fast_mode_follows_the_ranks) {
  const auto chosen = [](std::int64_t batch, int ranks) {
    Config config;
    config.train.batch = batch;
    return for_ranks(resolved(config), ranks).train.micro_batch;
  };
  // Where it divided the work evenly it stays, and with it the bits.
  for (const int ranks : {1, 2, 4, 8}) EXPECT_EQ(chosen(64, ranks), 8) << ranks;
  EXPECT_EQ(chosen(24, 3), 2);  // 4 x 2 each, not 3, 3 and 2 x 3
  EXPECT_EQ(chosen(64, 16), 4);
  EXPECT_EQ(chosen(64, 3), 2);  // 11, 11 and 10 x 2
  EXPECT_EQ(chosen(64, 63), 1);
  EXPECT_EQ(chosen(7, 3), 1);      // fewer than shards
  EXPECT_EQ(chosen(1000, 3), 50);  // 350 sequences at most, where an even share would be 333.3
  EXPECT_LT(chosen(2147483646, 1) * 1024, std::int64_t{1} << 31);

  Config told;
  told.train.micro_batch = 4;
  EXPECT_EQ(for_ranks(told, 3).train.micro_batch, 4);
}

TEST(Config, keys_that_contradict_each_other_are_refused_by_name) {
  const auto refused = [](const std::function<void(Config&)>& change) {
    return refusal([&] {
      Config config;
      change(config);
      resolve(config);
      check_relations(config);
    });
  };
  EXPECT_EQ(refused([](Config&) {}), "");
  EXPECT_EQ(refused([](Config& c) { c.model.heads = 7; }).substr(0, 29), "model.heads = 7 does not divi");
  EXPECT_EQ(refused([](Config& c) { c.model.kv_heads = 5; }).substr(0, 18), "model.kv_heads = 5");
  EXPECT_EQ(refused([](Config& c) {
              c.optimizer.nesterov = true;
              c.optimizer.momentum = 0;
            }).substr(0, 43),
            "optimizer.nesterov wants optimizer.momentum");
  EXPECT_EQ(refused([](Config& c) { c.model.context = 512; }).substr(0, 29), "train.sequence = 1024 exceeds");
  const auto invariant = [](Config& c) { c.train.reduction = Reduction::invariant; };
  for (const std::int64_t batch : {12, 4}) {
    EXPECT_EQ(refused([&](Config& c) { c.train.batch = batch; }), "");
    EXPECT_EQ(refused([&](Config& c) { invariant(c), c.train.batch = batch; }).substr(0, 33),
              "train.shards = 8 does not divide ");
  }
  EXPECT_EQ(refused([](Config& c) { c.train.micro_batch = 3; }),
            "train.micro_batch = 3 does not divide train.batch = 64; choose a divisor");
  EXPECT_EQ(refused([](Config& c) { c.train.micro_batch = 16; }), "");
  EXPECT_EQ(refused([&](Config& c) { invariant(c), c.train.micro_batch = 16; }).substr(0, 22),
            "train.micro_batch = 16");
  const auto odd_heads = [](Config& c) { c.model.width = 36; };
  EXPECT_EQ(refused(odd_heads), "");
  EXPECT_NE(refused([&](Config& c) { odd_heads(c), c.model.family = Family::llama; }).find("rotary"),
            std::string::npos);
  EXPECT_NE(refused([](Config& c) {
              c.data.path = "a", c.data.source = {{"b", 1}};
            }).find("data.path"),
            std::string::npos);
}

TEST(Config, sources_carry_their_weights_and_name_their_faults) {
  const Config config =
      parse_config("[[data.source]]\npath = \"a\"\nweight = 3\n[[data.source]]\npath = \"b\"\n", "a.toml");
  EXPECT_EQ(config.data.sources(), (std::vector<DataSource>{{"a", 3}, {"b", 1}}));
  EXPECT_EQ(refusal_of_text("[[data.source]]\nweight = 3\n"),
            "a.toml:1: this data.source has no path; add path = \"FOLDER\"");
  EXPECT_NE(
      refusal_of_text("[[data.source]]\npath = \"a\"\nweight = -1\n").find("a.toml:3: data.source.weight"),
      std::string::npos);
  EXPECT_NE(refusal_of_text("[[data.source]]\npath = \"a\"\nwait = 1\n").find("data.source.wait"),
            std::string::npos);
  Config one = config;
  apply_overrides(one, std::vector<Override>{{"data.path", "c"}});
  EXPECT_EQ(one.data.sources(), (std::vector<DataSource>{{"c", 1}}));
}

TEST(Config, tables_where_a_value_belongs_are_refused) {
  const std::string message = refusal_of_text("[[data.path]]\npath = \"a\"\n");
  EXPECT_NE(message.find("data.path"), std::string::npos) << message;
}

// The files of a run hold its folder's name, and are JSON and TOML.
TEST(Config, a_name_that_is_no_utf8_is_refused_before_it_names_a_run) {
  const std::string path = ::testing::TempDir() + "caf\xe9-" + std::to_string(getpid()) + ".toml";
  write_text_atomically(path, "[model]\nvocabulary = 257\n");
  const std::string message = refusal([&] { read_config(path, {}); });
  EXPECT_NE(message.find("UTF-8"), std::string::npos) << message;
  EXPECT_EQ(read_config(path, std::vector<Override>{{"run.dir", "runs/x"}}).run.dir, "runs/x");
  std::filesystem::remove(path);
}

TEST(Config, a_bert_without_anything_to_restore_is_refused) {
  const auto refusal_of = [](const std::string& mask) {
    const std::vector<Override> overrides = {{"model.family", "bert"}, {"model.mask", mask}};
    return refusal([&] { read_config("configs/tiny.toml", overrides); });
  };
  EXPECT_EQ(refusal_of("0.5"), "");
  EXPECT_EQ(refusal_of("0"), "model.mask = 0 leaves no token to restore; raise it, or leave it out");
}

TEST(Config, a_key_of_another_family_is_refused_by_name) {
  const std::string bert = "[model]\nfamily = \"bert\"\n";
  EXPECT_EQ(refusal_of_text(bert + "mask = 0.3\ntoken_types = 1\n"), "");
  EXPECT_EQ(refusal_of_text(bert + "rope_base = 500000\n"),
            "a.toml:3: model.family = \"bert\" has no model.rope_base; leave it out, or choose another "
            "model.family");
  EXPECT_NE(refusal_of_text("[model]\nmask = 0.3\n").find("model.family = \"gpt\" has no model.mask"),
            std::string::npos);
}

TEST(Config, a_key_of_another_kind_of_optimizer_is_refused_by_name_wherever_its_kind_is_told) {
  const std::string sgd = "[optimizer]\nkind = \"sgd\"\n";
  EXPECT_EQ(refusal_of_text(sgd + "momentum = 0.5\nnesterov = true\nweight_decay = 1e-4\n"), "");
  EXPECT_EQ(refusal_of_text("[optimizer]\nbetas = [0.9, 0.95]\nkind = \"sgd\"\n"),
            "a.toml:2: optimizer.kind = \"sgd\" has no optimizer.betas; leave it out, or choose another "
            "optimizer.kind");
  EXPECT_NE(refusal_of_text(sgd + "epsilon = 1e-8\n").find("optimizer.epsilon"), std::string::npos);
  for (const std::string key : {"momentum = 0.9", "nesterov = false"})
    EXPECT_NE(
        refusal_of_text("[optimizer]\n" + key + "\n").find("a.toml:2: optimizer.kind = \"adamw\" has no"),
        std::string::npos);

  const auto refusal_of = [](const std::vector<Override>& overrides) {
    return refusal([&] { read_config("configs/tiny.toml", overrides); });
  };
  EXPECT_EQ(refusal_of({{"optimizer.momentum", "0.5"}, {"optimizer.kind", "sgd"}}), "");
  EXPECT_NE(refusal_of({{"optimizer.momentum", "0.5"}})
                .find("command line: optimizer.kind = \"adamw\" has no optimizer.momentum"),
            std::string::npos);
}

TEST(Config, the_resolved_file_holds_the_keys_of_its_optimizer_alone) {
  Config config = resolved();
  EXPECT_EQ(to_toml(config).find("momentum"), std::string::npos);
  config.optimizer.kind = OptimizerKind::sgd;
  config.optimizer.nesterov = true;
  const std::string text = to_toml(config);
  EXPECT_EQ(text.find("betas"), std::string::npos);
  EXPECT_EQ(parse_config(text, "config.toml"), config);
}

TEST(Config, a_path_that_cannot_be_looked_at_is_a_users_error) {
  EXPECT_NE(refusal([] { read_config(std::string(5000, 'a'), {}); }), "");
}

TEST(Config, the_resolved_file_reads_back_to_the_same_bits) {
  Config config = resolved();
  config.run.dir = "odd \"name\"\\with\ttabs\nand ümlauts";
  config.run.seed = std::numeric_limits<std::int64_t>::max();
  config.optimizer.lr = 0.1 + 0.2;
  config.optimizer.epsilon = 1e-8;
  config.optimizer.betas = {0.1 / 3, std::nextafter(0.999, 1.0)};
  config.optimizer.weight_decay = 5e-324;
  config.model.rope_base = 1e6;
  config.data.source = {{"a", 1.0 / 3}, {"b", 1e22}};
  config.run.precision = Precision::bf16;
  config.train.recompute = Recompute::block;
  const std::string text = to_toml(config);
  EXPECT_EQ(parse_config(text, "config.toml"), config);
  EXPECT_EQ(to_toml(parse_config(text, "config.toml")), text);
}

TEST(Config, a_run_folder_reads_as_its_own_configuration) {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "muster_config_test";
  std::filesystem::create_directories(folder);
  Config config = resolved();
  config.run.dir = "elsewhere";
  config.run.fresh = config.run.takeover = true;
  write_text_atomically((folder / "config.toml").string(), to_toml(config));
  const Config again = read_config(folder.string(), {});
  EXPECT_EQ(again.run.dir, folder.string());
  EXPECT_FALSE(again.run.fresh);
  EXPECT_FALSE(again.run.takeover);

  write_text_atomically((folder / "small.toml").string(), "");
  EXPECT_EQ(read_config((folder / "small.toml").string(), {}).run.dir, "runs/small");
  std::filesystem::remove_all(folder);
  EXPECT_EQ(refusal([&] { read_config("no/such.toml", {}); }),
            "cannot open no/such.toml: No such file or directory: check the path");
}

TEST(Config, keeps_where_data_lie_wherever_it_is_read_from) {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "muster_config_paths_test";
  std::filesystem::create_directories(folder / "run");
  const std::string here = std::filesystem::current_path().string(), file = (folder / "small.toml").string();
  const std::string text = "[data]\npath = \"./data/notes/\"\n";
  write_text_atomically(file, text);
  const Config config = read_config(file, {});
  EXPECT_EQ(config.data.path, here + "/data/notes/");
  EXPECT_EQ(read_text(file), text);
  write_text_atomically((folder / "run/config.toml").string(), to_toml(config));
  EXPECT_EQ(read_config((folder / "run").string(), {}).data.path, config.data.path);
  const std::vector<Override> moved = {{"data.path", "../elsewhere"}};
  EXPECT_EQ(read_config((folder / "run").string(), moved).data.path, here + "/../elsewhere");

  write_text_atomically(file, "[[data.source]]\npath = \"a\"\n[[data.source]]\npath = \"/b\"\n");
  EXPECT_EQ(read_config(file, {}).data.sources(), (std::vector<DataSource>{{here + "/a", 1}, {"/b", 1}}));
  std::filesystem::remove_all(folder);
}

TEST(Config, only_keys_that_leave_the_updates_alone_may_change_on_resume) {
  const Config before = resolved();
  Config after = before;
  after.train.steps = 9;
  after.train.sharding = 0;
  after.train.recompute = Recompute::norms;
  after.checkpoint.every = 5;
  after.eval.every = 2;
  after.run.threads = 3;
  EXPECT_EQ(changed_keys(before, after).size(), 6u);
  EXPECT_EQ(refusal([&] { refuse_fixed_changes(before, after); }), "");
  after.optimizer.lr = 0.5;
  EXPECT_EQ(refusal([&] { refuse_fixed_changes(before, after); }).substr(0, 44),
            "optimizer.lr may not change on resume: the r");
  const std::set<std::string_view> free = {
      "run.dir",     "run.device",     "run.fresh",       "run.time_limit",   "run.takeover",
      "run.threads", "run.watchdog",   "data.path",       "data.source",      "data.verify",
      "train.steps", "train.sharding", "train.recompute", "checkpoint.every", "checkpoint.keep",
      "eval.every",  "eval.windows"};
  Config invariant = before;
  invariant.train.reduction = Reduction::invariant;
  for (const Key& key : keys()) {
    EXPECT_EQ(may_change_on_resume(key, invariant), free.contains(key.name)) << key.name;
    const bool of_division = key.name == "train.shards" || key.name == "train.micro_batch";
    EXPECT_EQ(may_change_on_resume(key, before), free.contains(key.name) || of_division) << key.name;
  }
}

TEST(Config, every_row_of_the_table_reads_and_writes_its_own_field) {
  // Setting one key changes that key and no other.
  for (const Key& key : keys()) {
    Config config;
    const KeyValue old = key.get(config);
    KeyValue changed = old;
    if (auto* v = std::get_if<bool>(&changed)) *v = !*v;
    if (auto* v = std::get_if<std::int64_t>(&changed))
      *v = key.name == "train.sharding" ? 1 - *v : *v * 2 + (*v == 0);
    if (auto* v = std::get_if<double>(&changed)) *v = *v / 2 + (*v == 0 ? 0.5 : 0);
    if (auto* v = std::get_if<std::array<double, 2>>(&changed)) (*v)[1] /= 2;
    if (auto* v = std::get_if<std::string>(&changed)) {
      *v = key.kind == KeyKind::choice ? std::string(key.choices[key.choices[0] == *v ? 1 : 0]) : "else";
    }
    if (auto* v = std::get_if<std::vector<DataSource>>(&changed)) v->push_back({"a", 2});
    set_key(config, key, changed, "test");
    const auto differing = changed_keys(Config{}, config);
    ASSERT_EQ(differing.size(), 1u) << key.name;
    EXPECT_EQ(differing[0]->name, key.name);
    EXPECT_EQ(key.get(config), changed) << key.name;
    EXPECT_FALSE(key.meaning.empty());
  }
}

TEST(Config, the_configurations_that_come_with_muster_are_valid) {
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator("configs")) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_EQ(refusal([&] { read_config(entry.path().string(), {}); }), "") << entry.path();
    ++seen;
  }
  EXPECT_GE(seen, 5);
}

TEST(ConfigOfACheckpoint, another_model_is_refused_by_its_key_and_other_keys_are_free) {
  Config before, now;
  now.train.steps = 7;
  now.train.batch = 3;
  refuse_another_model(before, now, "step-00000001");
  now.model.norm_epsilon = 0.5;
  now.run.dir = "runs/a";
  try {
    refuse_another_model(before, now, "step-00000001");
    FAIL() << "nothing was refused";
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()),
              "step-00000001 was trained with model.norm_epsilon = 1e-05, and the configuration of runs/a "
              "says 0.5: "
              "restore that key");
  }
}

TEST(ConfigText, keys_of_any_depth_are_refused_in_a_line) {
  std::string key = "a";
  for (int i = 0; i < 48000; ++i) key += ".a";
  for (const std::string& text :
       {"[run]\n" + key + " = 1\n", "[" + key + "]\n", std::string("a = ") + std::string(48000, '[')})
    EXPECT_THROW(parse_config(text, "deep.toml"), UserError);
}

}  // namespace
}  // namespace muster
