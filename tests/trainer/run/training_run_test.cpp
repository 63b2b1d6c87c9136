// Whole training runs on a small dataset: the same end on any number of ranks, undisturbed or interrupted,
// and the same error on every rank.

#include "trainer/run/training_run.hpp"

#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/agree.hpp"
#include "comm/async_communicator.hpp"
#include "comm/threads/ranks.hpp"
#include "core/hash.hpp"
#include "core/parallel.hpp"
#include "core/philox.hpp"
#include "tests/data/scratch.hpp"
#include "tests/trainer/shaken.hpp"
#include "trainer/checkpoint/load.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

// How the ranks of a run are started, and what happens to them.
struct Launch {
  int ranks = 1;
  std::uint64_t delays = 0;  // 0: inline streams, no pauses
  // Called by each rank once a step, where a signal would be asked for; 0 before the first.
  std::function<bool(int rank, std::int64_t step)> stop = {};
  bool always_asked = false;                             // not once a step but at every safe point
  std::function<void(std::int64_t steps)> unsaved = {};  // told by a run of one rank
  std::function<void(Config& config)> of_the_last = {};  // what the last rank has otherwise
};

class TrainingRun : public Scratch {
 protected:
  void SetUp() override {
    Scratch::SetUp();
    std::vector<std::string> documents;
    for (std::uint32_t d = 0; d < 120; ++d) {
      std::string text;
      const std::uint32_t length = 5 + philox({d, 0, 0, 0}, 1)[0] % 60;
      for (std::uint32_t i = 0; i < length; ++i)
        text += static_cast<char>('a' + philox({d, 1 + i, 0, 0}, 1)[0] % 26);
      documents.push_back(text);
    }
    PrepareOptions options;
    options.validation = 0.15;
    options.shard_tokens = 1024;
    prepare({write_lines("text.jsonl", documents)}, path("data"), options);
  }

  Config config(const std::string& run) const {
    Config config;
    config.run.dir = path(run);
    config.model.layers = 2;
    config.model.width = 32;
    config.model.heads = 2;
    config.model.dropout = 0.1;
    config.data.path = path("data");
    config.data.documents = true;
    config.train.steps = 6;
    config.train.batch = 8;
    config.train.sequence = 16;
    config.train.reduction = Reduction::invariant;
    config.optimizer.lr = 1e-2;
    config.optimizer.clip = 0.5;
    config.schedule.warmup = 2;
    config.checkpoint.every = 0;
    config.eval.every = 3;
    resolve(config);
    return config;
  }

  // Every rank ends alike: with the result of rank 0, or with the one error that is thrown here.
  RunResult run(const Config& config, const Launch& launch = {}) const {
    std::mutex mutex;
    std::vector<RunResult> results;
    std::vector<std::string> errors;
    int printed = 0;
    run_ranks(
        launch.ranks,
        [&](Communicator& comm) {
          set_thread_count(2);
          std::unique_ptr<Stream> stream = std::make_unique<InlineStream>();
          if (launch.delays > 0)
            stream = std::make_unique<shaken::DelayedStream>(
                launch.delays + static_cast<std::uint64_t>(comm.rank()), 2);
          MemoryAccount account;
          // What the communicator took from the account of run_ranks.
          const Buffer staging(account, MemoryKind::communication,
                               comm.size() > 1 ? AsyncCommunicator::staging_bytes : 0);
          std::int64_t asked = -1;
          bool answer = false;
          const auto stop = [&](std::int64_t step) {
            if (std::exchange(asked, step) != step || launch.always_asked)
              answer = launch.stop && launch.stop(comm.rank(), step);
            return answer;
          };
          Machine machine(cpu_device(), account, std::move(stream));
          RunHost host{{comm, comm}, machine, stop};
          if (launch.unsaved) host.unsaved = launch.unsaved;
          try {
            Config mine = config;
            if (launch.of_the_last && comm.rank() + 1 == launch.ranks) launch.of_the_last(mine);
            const RunResult result = run_training(mine, host);
            const std::lock_guard lock(mutex);
            results.push_back(result);
          } catch (const UserError& error) {
            const std::lock_guard lock(mutex);
            errors.emplace_back(error.what());
            printed += is_printed_here(error) ? 1 : 0;
          }
        },
        launch.delays);
    EXPECT_TRUE(results.empty() || errors.empty()) << "some ranks failed and others did not";
    for (const RunResult& result : results) {
      EXPECT_EQ(result.position.step, results[0].position.step);
      EXPECT_EQ(result.interrupted, results[0].interrupted);
      EXPECT_EQ(result.evaluation.loss, results[0].evaluation.loss);
    }
    if (results.empty()) {
      EXPECT_EQ(errors, std::vector<std::string>(static_cast<std::size_t>(launch.ranks), errors.at(0)));
      EXPECT_EQ(printed, 1);
      throw UserError(errors.at(0));
    }
    return results[0];
  }

  // Hashes of all tensors of a checkpoint, by name.
  std::map<std::string, std::string> tensors(const std::string& run, std::int64_t step) const {
    const Checkpoint checkpoint =
        Checkpoint::open(checkpoint_path(RunFolder(path(run)).checkpoints(), step), Trust::full);
    std::map<std::string, std::string> hashes;
    for (const std::string& name : checkpoint.names()) {
      std::int64_t elements = 1;
      for (const std::int64_t extent : checkpoint.shape(name)) elements *= extent;
      std::vector<float> values(static_cast<std::size_t>(elements));
      checkpoint.read(name, 0, elements, values);
      hashes[name] = hex(hash_bytes(std::as_bytes(std::span(values))));
    }
    return hashes;
  }

  std::vector<nlohmann::json> metrics(const std::string& run) const {
    std::vector<nlohmann::json> records;
    std::istringstream lines(read_text(RunFolder(path(run)).metrics()));
    for (std::string line; std::getline(lines, line);) records.push_back(nlohmann::json::parse(line));
    return records;
  }
  // Of each step what must not depend on how it was run.
  std::vector<std::string> values(const std::string& run) const {
    std::vector<std::string> lines;
    for (const nlohmann::json& record : metrics(run)) {
      std::string line;
      for (const char* key :
           {"step", "loss", "grad_norm", "lr", "samples", "targets", "skipped", "eval_loss"})
        line += record.contains(key) ? std::string(key) + " " + record[key].dump() + " " : "";
      lines.push_back(line);
    }
    return lines;
  }
  std::vector<std::int64_t> checkpoints(const std::string& run) const {
    std::vector<std::int64_t> steps;
    for (const CheckpointInfo& info : list_checkpoints(RunFolder(path(run)).checkpoints())) {
      EXPECT_TRUE(info.complete) << info.path << ": " << info.problem;
      steps.push_back(info.step);
    }
    return steps;
  }

  void expect_same_end(const std::string& run, const std::string& as) const {
    EXPECT_EQ(tensors(run, 6), tensors(as, 6));
    EXPECT_EQ(values(run), values(as));
  }
};

TEST_F(TrainingRun, arrives_at_the_same_bits_on_any_number_of_ranks) {
  const RunResult alone = run(config("alone"));
  EXPECT_EQ(alone.position.step, 6);
  EXPECT_EQ(alone.position.updates, 6);
  EXPECT_FALSE(alone.interrupted);
  EXPECT_GT(alone.evaluation.targets, 0);
  ASSERT_EQ(metrics("alone").size(), 6u);
  EXPECT_EQ(tensors("alone", 6).size(), 3u * (2 + 2 * 12 + 2));  // with both moments

  // Of the training step alone training_step_test.cpp tries all combinations.
  for (const auto& [ranks, sharding] : {std::pair{1, 0}, {2, 0}, {3, 1}}) {
    const std::string name = std::to_string(ranks) + "-ranks";
    Config shared = config(name);
    shared.train.sharding = sharding;
    const RunResult result = run(shared, {.ranks = ranks, .delays = 40 + static_cast<std::uint64_t>(ranks)});
    EXPECT_EQ(result.evaluation.loss, alone.evaluation.loss);
    SCOPED_TRACE(name);
    expect_same_end(name, "alone");
  }
}

// A rank of two has less than 512 of them, one alone has more: losses are collected in between.
TEST_F(TrainingRun, evaluates_hundreds_of_micro_batches_to_the_same_bits) {
  PrepareOptions options;
  options.validation = 0.25;
  prepare({path("text.jsonl")}, path("much"), options);
  const auto evaluated = [&](int ranks) {
    Config many = config("evaluated-by-" + std::to_string(ranks));
    many.data.path = path("much");
    many.train.steps = 1;
    many.train.sequence = 1;
    many.train.micro_batch = 1;
    many.eval.every = 1;
    return run(many, {.ranks = ranks}).evaluation;
  };
  const EvaluationResult alone = evaluated(1);
  EXPECT_GT(alone.targets, 512);
  EXPECT_LT(alone.targets, 1024);
  EXPECT_NEAR(alone.loss, std::log(257), 1);  // of a model that knows nothing yet
  EXPECT_EQ(evaluated(2).loss, alone.loss);
}

TEST_F(TrainingRun, interrupted_and_resumed_on_other_ranks_arrives_where_the_undisturbed_one_does_by_sgd) {
  const auto by_sgd = [&](const std::string& name) {
    Config changed = config(name);
    changed.optimizer.kind = OptimizerKind::sgd;
    return changed;
  };
  run(by_sgd("undisturbed"));
  Config interrupted = by_sgd("interrupted");
  run(interrupted,
      {.ranks = 2, .delays = 3, .stop = [](int rank, auto step) { return rank == 1 && step == 2; }});
  EXPECT_FALSE(run(interrupted, {.ranks = 3}).interrupted);
  expect_same_end("interrupted", "undisturbed");
}

TEST_F(TrainingRun, interrupted_and_resumed_on_other_ranks_arrives_where_the_undisturbed_one_does) {
  run(config("undisturbed"));

  Config interrupted = config("interrupted");
  const RunResult first =
      run(interrupted,
          {.ranks = 2, .delays = 3, .stop = [](int rank, auto step) { return rank == 1 && step == 2; }});
  EXPECT_TRUE(first.interrupted);
  EXPECT_EQ(first.position.step, 2);
  EXPECT_EQ(checkpoints("interrupted"), std::vector<std::int64_t>{2});

  interrupted.train.sharding = 0;
  const RunResult second =
      run(interrupted,
          {.ranks = 3, .delays = 4, .stop = [](int rank, auto step) { return rank == 0 && step == 5; }});
  EXPECT_TRUE(second.interrupted);
  EXPECT_EQ(second.position.step, 5);

  interrupted.train.sharding = 1;
  EXPECT_FALSE(run(interrupted, {.ranks = 1}).interrupted);
  expect_same_end("interrupted", "undisturbed");
  std::vector<std::int64_t> attempts;
  for (const nlohmann::json& record : metrics("interrupted")) attempts.push_back(record["attempt"]);
  EXPECT_EQ(attempts, (std::vector<std::int64_t>{1, 1, 2, 2, 2, 3}));
}

TEST_F(TrainingRun, ends_after_its_time_limit_with_a_checkpoint) {
  run(config("undisturbed"));
  Config limited = config("limited");
  limited.run.time_limit = 1e-6;
  const RunResult result = run(limited, {.ranks = 2});
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.position.step, 1);
  EXPECT_EQ(checkpoints("limited"), std::vector<std::int64_t>{1});
  limited.run.time_limit = 0;
  run(limited, {.ranks = 2});
  expect_same_end("limited", "undisturbed");
}

TEST_F(TrainingRun, that_was_asked_to_stop_saves_and_evaluates_nothing) {
  const RunResult result = run(config("run"), {.ranks = 2, .stop = [](int, auto step) { return step == 3; }});
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(checkpoints("run"), std::vector<std::int64_t>{3});
  EXPECT_FALSE(metrics("run").at(2).contains("eval_loss"));
  EXPECT_EQ(result.evaluation.targets, 0);
}

TEST_F(TrainingRun, that_is_asked_to_stop_within_a_step_ends_with_it) {
  int asked = 0;
  const RunResult result =
      run(config("run"),
          {.stop = [&](int, auto step) { return step == 2 && ++asked == 8; }, .always_asked = true});
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(checkpoints("run"), std::vector<std::int64_t>{2}) << "asked in its last micro-batch";
}

TEST_F(TrainingRun, that_is_asked_to_stop_before_its_first_step_takes_none) {
  run(config("undisturbed"));
  for (const std::int64_t before : {0, 2}) {
    const auto stop_after = [&](std::int64_t last) {
      return run(config("run"),
                 {.ranks = 2, .stop = [=](int rank, auto step) { return rank == 1 && step == last; }});
    };
    if (before > 0) stop_after(before);
    const RunResult result = stop_after(before);
    EXPECT_TRUE(result.interrupted);
    EXPECT_EQ(result.position.step, before);
    EXPECT_EQ(metrics("run").size(), static_cast<std::size_t>(before));
  }
  run(config("run"));
  expect_same_end("run", "undisturbed");
}

TEST_F(TrainingRun, that_is_asked_to_stop_in_an_evaluation_ends_it_on_all_ranks_and_saves) {
  run(config("undisturbed"));
  for (const int ranks : {1, 2, 3}) {
    const std::string name = "run-of-" + std::to_string(ranks);
    // More often than the last rank is asked in the step itself, for each of its leaves.
    int asked = 0;
    const auto in_evaluation = [&](int rank, auto step) {
      return rank + 1 == ranks && step == 3 && ++asked > (8 + ranks - 1) / ranks;
    };
    const RunResult result =
        run(config(name), {.ranks = ranks, .delays = 5, .stop = in_evaluation, .always_asked = true});
    EXPECT_TRUE(result.interrupted);
    EXPECT_EQ(result.evaluation.targets, 0);
    EXPECT_EQ(checkpoints(name), std::vector<std::int64_t>{3});
    EXPECT_FALSE(metrics(name).at(2).contains("eval_loss"));
    run(config(name));
    EXPECT_EQ(tensors(name, 6), tensors("undisturbed", 6));
  }
}

TEST_F(TrainingRun, tells_how_many_steps_are_not_saved) {
  std::vector<std::int64_t> unsaved;
  Config saving = config("run");
  saving.checkpoint.every = 4;
  run(saving, {.unsaved = [&](std::int64_t steps) { unsaved.push_back(steps); }});
  EXPECT_EQ(unsaved, (std::vector<std::int64_t>{1, 2, 3, 4, 0, 1, 2, 0}));
}

TEST_F(TrainingRun, refuses_ranks_that_would_train_on_other_data_or_by_other_rules) {
  PrepareOptions options;
  options.validation = 0.2;  // the same text, divided otherwise
  prepare({path("text.jsonl")}, path("other"), options);
  const auto refusal = [&](const std::function<void(Config&)>& change) {
    return message_of([&] { run(config("run"), {.ranks = 3, .of_the_last = change}); });
  };
  EXPECT_TRUE(tells(refusal([&](Config& last) { last.data.path = path("other"); }),
                    {"rank 2", path("other"), "other data"}));
  EXPECT_TRUE(tells(refusal([](Config& last) { last.optimizer.weight_decay = 0.5; }),
                    {"rank 2", "optimizer.weight_decay"}));
  EXPECT_TRUE(
      tells(refusal([](Config& last) { last.checkpoint.every = 2; }), {"rank 2", "checkpoint.every"}));
  EXPECT_FALSE(std::filesystem::exists(path("run")));

  std::filesystem::copy(path("data"), path("copy"));
  run(config("run"), {.ranks = 3, .of_the_last = [&](Config& last) {
                        last.data.path = path("copy");
                        last.run.threads = 3;
                      }});
  EXPECT_EQ(checkpoints("run"), std::vector<std::int64_t>{6});
}

TEST_F(TrainingRun, that_was_asked_to_stop_in_its_last_step_is_done) {
  const RunResult result = run(config("run"), {.stop = [](int, auto step) { return step == 6; }});
  EXPECT_FALSE(result.interrupted);
  EXPECT_EQ(checkpoints("run"), std::vector<std::int64_t>{6});
}

TEST_F(TrainingRun, started_again_at_its_end_does_nothing) {
  run(config("run"));
  const auto before = tensors("run", 6);
  const RunResult again = run(config("run"), {.ranks = 2});
  EXPECT_EQ(again.position.step, 6);
  EXPECT_FALSE(again.interrupted);
  EXPECT_EQ(tensors("run", 6), before);
  EXPECT_EQ(metrics("run").size(), 6u);
}

TEST_F(TrainingRun, uses_the_checkpoint_before_one_that_is_damaged) {
  run(config("undisturbed"));
  Config damaged = config("damaged");
  damaged.checkpoint.every = 2;
  run(damaged, {.ranks = 2, .stop = [](int, auto step) { return step == 5; }});
  ASSERT_EQ(checkpoints("damaged"), (std::vector<std::int64_t>{2, 4, 5}));
  const std::string file = checkpoint_path(RunFolder(path("damaged")).checkpoints(), 5) + "/rank-00001.h5";
  std::string bytes = read_text(file);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  File::create(file).write(bytes);

  run(damaged, {.ranks = 3});
  expect_same_end("damaged", "undisturbed");
}

// A file system may come back: a run that began anew would remove, one by one, what it cannot read today.
TEST_F(TrainingRun, refuses_to_begin_anew_where_no_checkpoint_can_be_used) {
  Config kept = config("kept");
  kept.checkpoint.every = 3;
  run(kept);
  const std::vector<std::int64_t> before = checkpoints("kept");
  ASSERT_EQ(before.size(), 2u);
  const auto records = metrics("kept").size();
  const auto file_of = [&](std::int64_t step) {
    return checkpoint_path(RunFolder(path("kept")).checkpoints(), step) + "/rank-00000.h5";
  };
  for (const std::int64_t step : before) std::filesystem::rename(file_of(step), file_of(step) + ".gone");
  EXPECT_THROW(run(kept, {.ranks = 2}), UserError);
  EXPECT_EQ(metrics("kept").size(), records);

  for (const std::int64_t step : before) std::filesystem::rename(file_of(step) + ".gone", file_of(step));
  EXPECT_EQ(run(kept).position.step, 6);
}

// Its attempts are lost where checkpoints alone were copied; a new one that counted from 1 would take them for later
// ones than its own, and remove these.
TEST_F(TrainingRun, goes_on_from_checkpoints_whose_attempts_are_lost) {
  Config kept = config("kept");
  kept.checkpoint.every = 1;
  kept.checkpoint.keep = 2;
  for (kept.train.steps = 1; kept.train.steps <= 4; ++kept.train.steps) run(kept);
  std::filesystem::remove_all(RunFolder(path("kept")).attempts());
  kept.train.steps = 6;
  EXPECT_EQ(run(kept).position.step, 6);
  EXPECT_EQ(checkpoints("kept"), (std::vector<std::int64_t>{5, 6}));
}

TEST_F(TrainingRun, that_is_refused_does_not_end_the_one_that_lives) {
  Config living = config("run");
  living.checkpoint.every = 2;
  std::vector<std::string> refusals;
  const auto refused = [&](auto change) {
    Config other = living;
    change(other);
    refusals.push_back(message_of([&] { run(other); }));
  };
  const RunResult result = run(living, {.stop = [&](int, auto step) {
                                 if (step != 4) return false;
                                 refused([](Config& c) { c.optimizer.lr = 2e-2; });
                                 refused([](Config& c) { c.run.fresh = true; });
                                 refused([&](Config& c) { c.data.path = path("none"); });
                                 refused([](Config& c) { c.model.width = 64; });
                                 return false;
                               }});
  EXPECT_EQ(result.position.step, 6);
  ASSERT_EQ(refusals.size(), 4u);
  EXPECT_TRUE(tells(refusals[0], {"optimizer.lr"}));
  for (const std::string& refusal : refusals) EXPECT_NE(refusal, "no error");
  EXPECT_EQ(metrics("run").size(), 6u);
}

TEST_F(TrainingRun, that_is_taken_over_while_it_starts_writes_nothing) {
  const RunFolder folder(path("run"));
  std::string message;
  {
    // The newer attempt comes as soon as this one has its number.
    const std::jthread newer([&](const std::stop_token& stop) {
      while (!stop.stop_requested() && !std::filesystem::exists(folder.attempts() + "/000001"))
        std::this_thread::yield();
      File::create(folder.attempts() + "/000002");
    });
    message = message_of([&] { run(config("run"), {.ranks = 2}); });
  }
  EXPECT_TRUE(tells(message, {"attempt 2", "has taken the run over"}));
  for (const std::string& file : {folder.config(), folder.description(), folder.metrics()})
    EXPECT_FALSE(std::filesystem::exists(file)) << file;
}

TEST_F(TrainingRun, keeps_the_newest_checkpoints) {
  Config keeping = config("run");
  keeping.checkpoint.every = 1;
  keeping.checkpoint.keep = 2;
  run(keeping);
  EXPECT_EQ(checkpoints("run"), (std::vector<std::int64_t>{5, 6}));
}

TEST_F(TrainingRun, skips_and_counts_steps_whose_loss_is_not_finite) {
  Config exploding = config("run");
  exploding.optimizer.lr = 1e30;
  exploding.optimizer.clip = 0;
  exploding.optimizer.weight_decay = 0;
  exploding.schedule.warmup = 0;
  exploding.eval.every = 0;
  const RunResult result = run(exploding, {.ranks = 2, .delays = 9});
  EXPECT_EQ(result.position.step, 6);
  EXPECT_EQ(result.position.updates, 1);
  const auto records = metrics("run");
  ASSERT_EQ(records.size(), 6u);
  for (std::size_t step = 0; step < 6; ++step) EXPECT_EQ(records[step]["skipped"], step > 0) << step;
  EXPECT_TRUE(records[5]["loss"].is_null());
}

// Token files of one token each, and one of two: where documents are apart, one target in all.
TEST_F(TrainingRun, names_the_steps_whose_batches_hold_no_target) {
  std::vector<std::string> files = {write("tokens/first.bin", std::string("\1\0\2\0", 4))};
  for (int file = 0; file < 400; ++file)
    files.push_back(write("tokens/" + std::to_string(file) + ".bin", std::string("\3\0", 2)));
  PrepareOptions options;
  options.validation = 0;
  options.vocabulary = 10;
  options.token_type = "u16";
  prepare(files, path("tokens/data"), options);
  Config sparse = config("run");
  sparse.data.path = path("tokens/data");
  sparse.eval.every = 0;
  const RunResult result = run(sparse);
  const std::string log = read_text(RunFolder(path("run")).log(0));
  std::int64_t empty = 0;
  for (const nlohmann::json& record : metrics("run")) {
    const std::string told =
        fmt::format("step {} is skipped: its batch holds no target", record["step"].get<int>());
    EXPECT_EQ(record["skipped"], record["targets"] == 0);
    EXPECT_EQ(log.find(told) != std::string::npos, record["targets"] == 0) << told;
    empty += record["targets"] == 0 ? 1 : 0;
  }
  EXPECT_GT(empty, 0);
  EXPECT_EQ(result.position.updates, 6 - empty);
  EXPECT_NE(log.find(fmt::format("{} steps were skipped: their batches held no target", empty)),
            std::string::npos);
  EXPECT_EQ(log.find("not finite"), std::string::npos);

  files.erase(files.begin());
  prepare(files, path("tokens/single"), options);
  sparse.data.path = path("tokens/single");
  sparse.run.dir = path("none");
  EXPECT_TRUE(
      tells(message_of([&] { run(sparse); }), {path("tokens/single"), "single token", "data.documents"}));
  EXPECT_FALSE(std::filesystem::exists(path("none")));
}

TEST_F(TrainingRun, tells_at_its_start_what_it_leaves_out) {
  Config parts = config("run");
  parts.eval.windows = 2;
  run(parts);
  const std::string log = read_text(RunFolder(path("run")).log(0));
  for (const char* told : {"documents are cut where a sample ends", "fill no sample and are left out",
                           "held out: the first 2 of "})
    EXPECT_LT(log.find(told), log.find("1/6")) << told;
}

TEST_F(TrainingRun, that_has_diverged_ends_and_keeps_the_checkpoints_from_before) {
  Config exploding = config("run");
  exploding.optimizer.lr = 1e30;
  exploding.schedule.warmup = 0;
  exploding.eval.every = 0;
  exploding.train.steps = 1000;
  exploding.checkpoint.every = 25;
  exploding.checkpoint.keep = 1;
  EXPECT_TRUE(
      tells(message_of([&] { run(exploding, {.ranks = 2}); }), {"to 101", "diverged", "optimizer.lr"}));
  EXPECT_EQ(metrics("run").size(), 101u);
  EXPECT_EQ(checkpoints("run"), (std::vector<std::int64_t>{25, 50, 75, 100}));
}

TEST_F(TrainingRun, ends_on_every_rank_when_a_shard_is_cut_short_under_it) {
  Config long_run = config("run");
  long_run.train.steps = 1000;
  long_run.eval.every = 0;
  const auto cut_in_step_3 = [&](int rank, std::int64_t step) {
    if (rank == 1 && step == 3)
      for (const auto& entry : std::filesystem::directory_iterator(path("data")))
        if (entry.path().filename().string().starts_with("train-")) std::filesystem::resize_file(entry, 100);
    return false;
  };
  const std::string error =
      message_of([&] { run(long_run, {.ranks = 3, .delays = 2, .stop = cut_in_step_3}); });
  EXPECT_TRUE(tells(error, {path("data") + "/train-0000", ".h5"}));
  EXPECT_EQ(checkpoints("run"), std::vector<std::int64_t>());
}

TEST_F(TrainingRun, tells_once_that_there_is_no_data) {
  Config without = config("run");
  without.data.path = path("nothing");
  EXPECT_TRUE(tells(message_of([&] { run(without, {.ranks = 3}); }), {path("nothing")}));
  EXPECT_FALSE(std::filesystem::exists(path("run")));
}

TEST_F(TrainingRun, refuses_to_start_anew_where_a_run_is) {
  run(config("run"));
  Config fresh = config("run");
  fresh.run.fresh = true;
  EXPECT_TRUE(tells(message_of([&] { run(fresh, {.ranks = 2}); }), {path("run")}));
}

TEST_F(TrainingRun, refuses_to_resume_with_another_seed) {
  run(config("run"));
  Config other = config("run");
  other.run.seed = 2;
  other.train.steps = 8;
  EXPECT_TRUE(tells(message_of([&] { run(other, {.ranks = 2}); }), {"run.seed"}));
  other.run.seed = 1;
  EXPECT_EQ(run(other).position.step, 8);
}

TEST_F(TrainingRun, refuses_more_ranks_than_shards) {
  EXPECT_TRUE(tells(message_of([&] { run(config("run"), {.ranks = 9}); }), {"9 ranks", "train.shards = 8"}));
}

TEST_F(TrainingRun, asks_for_held_out_text_when_it_shall_evaluate) {
  PrepareOptions options;
  options.validation = 0;
  prepare({path("text.jsonl")}, path("all"), options);
  Config evaluating = config("run");
  evaluating.data.path = path("all");
  EXPECT_TRUE(tells(message_of([&] { run(evaluating, {.ranks = 2}); }), {path("all"), "eval.every = 0"}));
  evaluating.eval.every = 0;
  EXPECT_EQ(run(evaluating).evaluation.targets, 0);
}

}  // namespace
}  // namespace muster
