#include "trainer/cli/command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fmt/format.h>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>

#include "core/error.hpp"
#include "core/text.hpp"
#include "trainer/build_info.hpp"
#include "trainer/commands/bench.hpp"
#include "trainer/commands/checkpoint.hpp"
#include "trainer/commands/evaluate.hpp"
#include "trainer/commands/generate.hpp"
#include "trainer/commands/plan.hpp"
#include "trainer/commands/prepare.hpp"
#include "trainer/commands/train.hpp"
#include "trainer/config/keys.hpp"
#include "trainer/config/read.hpp"
#include "trainer/config/reference.hpp"
#include "trainer/launcher.hpp"
#include "trainer/plan/devices.hpp"

namespace muster {
namespace {

constexpr const char* guide = R"(Muster trains GPT and Llama models on any number of ranks.

  muster prepare TEXT... --output DATA     text into a dataset
  muster plan CONFIG --ranks N             what a step will take, before it runs
  mpirun -n N muster train CONFIG          train, or go on with the run
  muster eval RUN                          loss, perplexity and bits per byte on held-out text
  muster generate RUN --prompt TEXT        let the model write
  muster checkpoint list RUN               the checkpoints of a run; verify RUN checks them
  muster bench ops CONFIG                  how fast ops, steps and collectives are, and how they scale

Each has --help with an example. Any key of a configuration can be set on the command line, as
--train.steps=100; muster train --help lists them. A first run, in minutes: ./launch/quickstart

Exit codes: 0 done, 1 a defect of muster, 2 something to mend, 75 a rank hangs (start again), 85 stopped by
a signal or a time limit (start again to go on).
)";

// What a number of an option may be.
struct Limits {
  double least, most;
};
constexpr double any = std::numeric_limits<double>::infinity();
constexpr Limits positive{1, any}, not_negative{0, any}, share{0, 1}, ranks_of_a_job{1, 0x1p20};

template <class Number>
std::string expectation(Limits limits) {
  if constexpr (std::is_integral_v<Number>) {
    const Number most = limits.most < static_cast<double>(std::numeric_limits<Number>::max())
                            ? static_cast<Number>(limits.most)
                            : std::numeric_limits<Number>::max();
    return fmt::format("a whole number from {} to {}", limits.least, most);
  } else {
    return limits.most < any ? fmt::format("a number from {} to {}", limits.least, limits.most)
                             : fmt::format("a number of at least {}", limits.least);
  }
}

template <class Field>
struct NumberOf {
  using Type = Field;
};
template <class Number>
struct NumberOf<std::optional<Number>> {
  using Type = Number;
};

// An option that is a number. (CLI11 reads 0x10 and 010 as others than 10, and a number too large as the largest.)
template <class Field>
CLI::Option* add_number(CLI::App& app, const std::string& name, Field& field, Limits limits,
                        const std::string& meaning) {
  using Number = typename NumberOf<Field>::Type;
  const auto read = [&field, limits, name](const std::string& text) {
    const std::optional<Number> value = parse_number<Number>(text);
    const double size = value ? static_cast<double>(*value) : any;
    if (!(size >= limits.least && size <= limits.most && size < any))
      throw CLI::ValidationError(name, fmt::format("{} is not {}", text, expectation<Number>(limits)));
    field = *value;
  };
  CLI::Option* option = app.add_option_function<std::string>(name, read, meaning);
  option->type_name(std::is_integral_v<Number> ? "INT" : "NUMBER");
  if constexpr (std::is_same_v<Field, Number>) option->default_str(fmt::format("{}", field));
  return option;
}

// The application and what its options are read into; it lives until its command has run.
struct Line {
  CLI::App app{"Trains GPT and Llama models on any number of ranks.", "muster"};
  std::vector<Override> overrides;
  std::vector<const CLI::App*> with_keys;  // commands that read a configuration
  Command command;
};

// A subcommand that runs `run(options)`; `add` binds its options to fields of `options`.
template <class Options, class Add>
void add_command(CLI::App& parent, Line& line, const char* name, const char* summary, const char* example,
                 int (*run)(const Options&), const Add& add) {
  CLI::App* command = parent.add_subcommand(name, summary);
  auto options = std::make_shared<Options>();
  add(*command, *options);
  command->footer(fmt::format("Example:\n  {}", example));
  if constexpr (requires { options->overrides; }) line.with_keys.push_back(command);
  command->callback([&line, options, run, command] {
    if constexpr (requires { options->overrides; }) {
      options->overrides = line.overrides;
    } else if (!line.overrides.empty()) {
      throw UserError(
          "command line: muster {} takes no configuration key, so --{} has no meaning here; leave it out",
          command->get_name(), line.overrides.front().key);
    }
    line.command = [options, run] { return run(*options); };
  });
}

int run_prepare(const PrepareCommandOptions& o) { return works_alone("prepare") ? prepare_command(o) : 0; }
int run_generate(const GenerateOptions& o) { return works_alone("generate") ? generate_command(o) : 0; }
// The ranks that share a host measure it together; the first tells.
int run_plan(const PlanOptions& o) {
  return o.on == "cpu" || works_alone("plan") ? plan_command(o, speaks_for_all_ranks()) : 0;
}

void add_prepare(Line& line) {
  add_command(
      line.app, line, "prepare", "Turn text into a dataset.",
      "muster prepare books/ notes.txt --output data/books --tokenizer bytes", run_prepare,
      [](CLI::App& app, PrepareCommandOptions& o) {
        app.add_option(
               "INPUT", o.inputs,
               "files or folders: plain text (a file is a document), JSON lines (a line is a document, its "
               "field \"text\"), both also compressed (.gz, .zst), or tokens in .npy and .bin "
               "(docs/formats.md)")
            ->required();
        app.add_option("--output", o.output, "folder of the dataset, new or empty")->required();
        app.add_option("--tokenizer", o.prepare.tokenizer, "of text: bytes")->capture_default_str();
        CLI::Option* validation =
            add_number(app, "--validation", o.prepare.validation, share,
                       "share to hold out: of the documents, or, where that would be less than ten files "
                       "of one document, of the end of each");
        app.add_option("--validation-input", o.prepare.validation_inputs,
                       "files or folders to hold out whole, in place of a share of the others")
            ->excludes(validation);
        app.add_flag("--skip-bad-lines", o.prepare.skip_bad_lines,
                     "of JSON lines: count and tell those without a text, instead of ending at the first");
        add_number(app, "--shard-tokens", o.prepare.shard_tokens, positive, "tokens of a shard, about");
        add_number(app, "--vocabulary", o.prepare.vocabulary, positive,
                   "of tokens made elsewhere: how many there are");
        add_number(app, "--end-token", o.prepare.end_token, not_negative,
                   "of tokens made elsewhere: ends a document");
        app.add_option("--token-type", o.prepare.token_type, "of .bin without a header: u16 or u32")
            ->check(CLI::IsMember({"u16", "u32"}));
      });
}

void add_config(CLI::App& app, std::string& config) {
  app.add_option("CONFIG", config, "configuration file, or the folder of a run")->required();
}

void add_run(CLI::App& app, std::string& run) { app.add_option("RUN", run, "folder of the run")->required(); }

void add_checkpoint_step(CLI::App& app, std::optional<std::int64_t>& step) {
  add_number(app, "--checkpoint", step, not_negative,
             "step of the checkpoint; the newest complete one if not given");
}

void add_train(Line& line) {
  const std::string example =
      "mpirun --bind-to none -n 2 muster train configs/quickstart.toml --train.steps=100 "
      "--run.dir=runs/try\n\n"
      "A run whose folder holds a complete checkpoint goes on from it. SIGINT, SIGTERM, SIGUSR1, SIGHUP and\n"
      "run.time_limit end the work in hand, save, and exit with code 85: start it again to go on.\n\n" +
      keys_as_help();
  add_command(line.app, line, "train", "Train a model, or go on with a run. Any key: --KEY=VALUE.",
              example.c_str(), train_command, [](CLI::App& app, TrainOptions& o) {
                add_config(app, o.config);
                app.add_option(
                    "--trace", o.trace,
                    "step=N: write when each kernel and collective of step N ran, for ui.perfetto.dev");
              });
}

void add_plan(Line& line) {
  add_command(
      line.app, line, "plan", "Tell what a step will take, without running it. Any key: --KEY=VALUE.",
      "muster plan configs/llama-1.5b.toml --on h100 --ranks 8 --train.recompute=block", run_plan,
      [](CLI::App& app, PlanOptions& o) {
        add_config(app, o.config);
        add_number(app, "--ranks", o.ranks, ranks_of_a_job, "number of ranks");
        std::vector<std::string> devices = gpu_names();
        devices.emplace_back("cpu");
        app.add_option(
               "--on", o.on,
               "predict the step on this device, which may be elsewhere: a100, h100, h200, b200, or cpu, "
               "this host, measured first")
            ->check(CLI::IsMember(devices));
        add_number(app, "--ranks-per-node", o.ranks_per_node, ranks_of_a_job,
                   "ranks that share a node; if not given 8 GPUs, or all ranks on this host")
            ->default_str("")
            ->needs("--on");
        app.add_flag("--steps", o.steps, "tell also what rank 0 does in a step, in order");
        app.add_flag("--json", o.json, "print the plan as JSON");
      });
}

void add_evaluate(Line& line) {
  add_command(line.app, line, "eval", "Evaluate a run's model on held-out text. Any key: --KEY=VALUE.",
              "muster eval runs/quickstart/run --checkpoint 600 --data.path=data/other", evaluate_command,
              [](CLI::App& app, EvaluateOptions& o) {
                add_run(app, o.run);
                add_checkpoint_step(app, o.checkpoint);
              });
}

void add_generate(Line& line) {
  add_command(
      line.app, line, "generate", "Let a run's model write. Any key: --KEY=VALUE.",
      "muster generate runs/quickstart/run --prompt 'The function' --tokens 300 --temperature 0.8",
      run_generate, [](CLI::App& app, GenerateOptions& o) {
        add_run(app, o.run);
        add_checkpoint_step(app, o.checkpoint);
        app.add_option("--prompt", o.prompt, "text to go on from; of a model on token ids, these");
        add_number(app, "--tokens", o.tokens, positive, "how many to write");
        add_number(app, "--temperature", o.temperature, not_negative, "0: always the likeliest token");
        add_number(app, "--top-k", o.top_k, not_negative, "choose among the k likeliest tokens; 0: all");
        add_number(app, "--top-p", o.top_p, share,
                   "choose among the likeliest tokens that together have this chance");
        add_number(app, "--seed", o.seed, not_negative, "of the choices");
      });
}

struct ListOptions {
  std::string run;
};
struct VerifyOptions {
  std::string run;
  std::optional<std::int64_t> step;
};
int run_list(const ListOptions& o) {
  return works_alone("checkpoint list") ? checkpoint_list_command(o.run) : 0;
}
int run_verify(const VerifyOptions& o) {
  return works_alone("checkpoint verify") ? checkpoint_verify_command(o.run, o.step) : 0;
}

void add_checkpoint(Line& line) {
  CLI::App* group = line.app.add_subcommand("checkpoint", "List or verify the checkpoints of a run.");
  group->require_subcommand(1);
  group->footer("Example:\n  muster checkpoint list runs/quickstart/run");
  add_command(*group, line, "list", "Show the checkpoints of a run.",
              "muster checkpoint list runs/quickstart/run", run_list,
              [](CLI::App& app, ListOptions& o) { add_run(app, o.run); });
  add_command(*group, line, "verify", "Compare every file of a run's checkpoints with its hash.",
              "muster checkpoint verify runs/quickstart/run 600", run_verify,
              [](CLI::App& app, VerifyOptions& o) {
                add_run(app, o.run);
                add_number(app, "STEP", o.step, not_negative,
                           "step of the checkpoint; all complete ones if not given");
              });
}

void add_bench(Line& line) {
  CLI::App* group = line.app.add_subcommand("bench", "Measure ops, the step, collectives, or scaling.");
  group->require_subcommand(1);
  group->footer("Example:\n  muster bench ops configs/gpt2-124m.toml");
  const auto add_json = [](CLI::App& app, BenchOptions& o) { app.add_flag("--json", o.json, "print JSON"); };
  const auto add_steps = [](CLI::App& app, BenchStepOptions& o) {
    add_number(app, "--steps", o.steps, positive, "steps of which each figure is the median");
  };
  add_command(*group, line, "ops",
              "Time each op of a training step, beside its ceiling. Any key: --KEY=VALUE.",
              "muster bench ops configs/gpt2-124m.toml --run.device=cuda --train.micro_batch=8",
              bench_ops_command, [&](CLI::App& app, BenchOptions& o) {
                add_config(app, o.config);
                add_json(app, o);
              });
  add_command(*group, line, "step", "Divide the time of a training step by op. Any key: --KEY=VALUE.",
              "mpirun --bind-to none -n 2 muster bench step configs/gpt2-124m.toml --train.batch=32",
              bench_step_command, [&](CLI::App& app, BenchStepOptions& o) {
                add_config(app, o.config);
                add_steps(app, o);
                add_json(app, o);
              });
  add_command(*group, line, "comm", "Time collectives from 1 KiB to 64 MiB, told as nccl-tests do.",
              "mpirun --bind-to none -n 4 muster bench comm --run.device=cuda", bench_comm_command, add_json);
  add_command(*group, line, "scaling",
              "Take the same step, and steps that grow, on 1 to all ranks. Any key: --KEY=VALUE.",
              "mpirun --bind-to none -n 4 muster bench scaling configs/tiny.toml --output scaling\n\n"
              "In a batch job by srun: docs/cluster.md.",
              bench_scaling_command, [&](CLI::App& app, BenchScalingOptions& o) {
                add_config(app, o.config);
                add_steps(app, o);
                app.add_option("--output", o.output,
                               "folder for scaling.csv; ./launch/plot-scaling draws it");
                add_json(app, o);
              });
}

// The command as it is spelt so far: "muster checkpoint list".
std::string spelt(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* sub : app.get_subcommands()) name += " " + spelt(*sub);
  return name;
}

void refuse_unknown_command(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (word.starts_with('-') || std::ranges::find(names, word) != names.end()) return;
  throw UserError("unknown command {}; did you mean {}?", word, nearest_name(word, names));
}

// Of the options of the command, and of the keys, if it takes any, the one that may have been meant.
std::string meant(const Line& line, const CLI::App& command, std::string_view option) {
  const std::string_view bare = option.substr(option.find_first_not_of('-'));
  std::vector<std::string> names;
  for (const CLI::Option* known : command.get_options())
    for (const std::string& name : known->get_lnames()) names.push_back(name);
  const std::string nearest = nearest_name(bare, names);
  if (!nearest.empty() && edit_distance(bare, nearest) <= most_slips(bare)) return nearest;
  const bool takes_keys = std::ranges::find(line.with_keys, &command) != line.with_keys.end();
  return takes_keys ? suggested_key(bare) : "";
}

UserError not_expected(const Line& line) {
  const CLI::App* command = &line.app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  const std::vector<std::string> left = line.app.remaining(true);
  const auto option =
      std::ranges::find_if(left, [](const auto& word) { return word.size() > 2 && word.starts_with("--"); });
  const std::string see = spelt(line.app) + " --help";
  if (option == left.end())
    return UserError("command line: {} was not expected; see {}", left.empty() ? "" : left.front(), see);
  const std::string name = option->substr(0, option->find('='));
  const std::string suggestion = meant(line, *command, name);
  if (suggestion.empty()) return UserError("command line: unknown option {}; see {}", name, see);
  return UserError("command line: unknown option {} (did you mean --{}?); see {}", name, suggestion, see);
}

Command print(std::string text) {
  return [text = std::move(text)] {
    fmt::print("{}", text);
    return 0;
  };
}

}  // namespace

Command read_command_line(std::vector<std::string> arguments) {
  if (arguments.empty() || arguments.front() == "--help" || arguments.front() == "-h" ||
      arguments.front() == "help")
    return print(guide);
  const auto line = std::make_shared<Line>();
  line->overrides = take_overrides(arguments);
  line->app.set_version_flag("--version", describe_build());
  line->app.require_subcommand(1);
  for (const auto add :
       {add_prepare, add_train, add_plan, add_evaluate, add_generate, add_checkpoint, add_bench})
    add(*line);
  if (!arguments.empty()) refuse_unknown_command(line->app, arguments.front());
  for (const char* group : {"checkpoint", "bench"})
    if (arguments.size() > 1 && arguments.front() == group)
      refuse_unknown_command(*line->app.get_subcommand(group), arguments[1]);
  std::ranges::reverse(arguments);  // as CLI11 takes them
  try {
    line->app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    return print(line->app.help());
  } catch (const CLI::CallForVersion&) {
    return print(line->app.version() + "\n");
  } catch (const CLI::ExtrasError&) {
    throw not_expected(*line);
  } catch (const CLI::ParseError& error) {
    throw UserError("command line: {}; see {} --help", error.what(), spelt(line->app));
  }
  return line->command;
}

}  // namespace muster
