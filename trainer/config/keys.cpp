#include "trainer/config/keys.hpp"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits>
#include <type_traits>

#include "core/error.hpp"
#include "core/text.hpp"
#include "model/families/family.hpp"

namespace muster {
namespace {

constexpr KeyRule anything{};
constexpr KeyRule at_least_0{"at least 0", [](double v) { return v >= 0; }};
// Counts stay far from where their products would overflow.
constexpr KeyRule count{"from 0 to 2^31 - 1", [](double v) { return v >= 0 && v < 0x1p31; }};
constexpr KeyRule count_from_1{"from 1 to 2^31 - 1", [](double v) { return v >= 1 && v < 0x1p31; }};
constexpr KeyRule extent{"from 1 to 2^24", [](double v) { return v >= 1 && v <= 0x1p24; }};
constexpr KeyRule extent_or_0{"from 0 to 2^24", [](double v) { return v >= 0 && v <= 0x1p24; }};
constexpr KeyRule few{"from 0 to 4096", [](double v) { return v >= 0 && v <= 4096; }};
constexpr KeyRule few_from_1{"from 1 to 4096", [](double v) { return v >= 1 && v <= 4096; }};
// What the arithmetic takes as f32 must not become 0, 1 or infinite there.
constexpr KeyRule above_0{"greater than 0 in f32", [](double v) {
                            return static_cast<float>(v) > 0 && v <= std::numeric_limits<float>::max();
                          }};
constexpr KeyRule from_0_to_1{"from 0 to 1", [](double v) { return v >= 0 && v <= 1; }};
constexpr KeyRule below_1{"at least 0 and below 1 in f32",
                          [](double v) { return v >= 0 && static_cast<float>(v) < 1; }};
constexpr KeyRule power_of_two{
    "a power of two up to 2^20 (1, 2, 4, 8, ...)",
    [](double v) { return v >= 1 && v <= 0x1p20 && std::has_single_bit(static_cast<std::uint64_t>(v)); }};
constexpr KeyRule zero_or_one{"0 or 1", [](double v) { return v == 0 || v == 1; }};

template <class T>
constexpr auto choices_of = spellings(T{});

template <class T>
constexpr KeyKind kind_of() {
  if constexpr (std::is_enum_v<T>) return KeyKind::choice;
  if constexpr (std::is_same_v<T, bool>) return KeyKind::boolean;
  if constexpr (std::is_same_v<T, std::int64_t>) return KeyKind::integer;
  if constexpr (std::is_same_v<T, double>) return KeyKind::number;
  if constexpr (std::is_same_v<T, std::array<double, 2>>) return KeyKind::pair;
  if constexpr (std::is_same_v<T, std::string>) return KeyKind::text;
  if constexpr (std::is_same_v<T, std::vector<DataSource>>) return KeyKind::sources;
}

// A row: `Section` is the member of Config, `Field` the member of that section.
template <auto Section, auto Field>
constexpr Key row(std::string_view name, KeyRule rule, OnResume on_resume, std::string_view meaning) {
  using T = std::remove_cvref_t<decltype(std::declval<Config>().*Section.*Field)>;
  Key key{.name = name,
          .kind = kind_of<T>(),
          .get = nullptr,
          .set = nullptr,
          .choices = {},
          .rule = rule,
          .on_resume = on_resume,
          .meaning = meaning,
          .belongs = nullptr,
          .decided_by = name.starts_with("model.") ? "model.family" : std::string_view()};
  if constexpr (std::is_enum_v<T>) {
    key.choices = choices_of<T>;
    key.get = [](const Config& c) { return KeyValue(std::string(spelling(c.*Section.*Field))); };
    key.set = [](Config& c, const KeyValue& value) {
      const auto& all = choices_of<T>;
      c.*Section.*Field = static_cast<T>(std::ranges::find(all, std::get<std::string>(value)) - all.begin());
    };
  } else {
    key.get = [](const Config& c) { return KeyValue(c.*Section.*Field); };
    key.set = [](Config& c, const KeyValue& value) { c.*Section.*Field = std::get<T>(value); };
  }
  return key;
}

// A row of one kind of optimizer.
template <OptimizerKind kind>
constexpr Key only(Key key) {
  key.belongs = [](const Config& config) { return config.optimizer.kind == kind; };
  key.decided_by = "optimizer.kind";
  return key;
}

// Fixed on resume is whatever the samples, the random numbers or the arithmetic of an update depend on: a
// resumed run must arrive where the undisturbed one arrives, so a change of these is a new run. What only
// says how long, where and how comfortably it runs may change. The dataset may move to another path: the
// checkpoint's manifest knows it by its content, not by its path. How a batch is divided is arithmetic, too, but fast
// mode divides it by the ranks anyway.
constexpr OnResume fixed = OnResume::fixed, fixed_if_invariant = OnResume::fixed_if_invariant,
                   may_change = OnResume::may_change;

constexpr auto run = &Config::run;
constexpr auto model = &Config::model;
constexpr auto data = &Config::data;
constexpr auto train = &Config::train;
constexpr auto optimizer = &Config::optimizer;
constexpr auto schedule = &Config::schedule;
constexpr auto checkpoint = &Config::checkpoint;
constexpr auto eval = &Config::eval;
using R = RunConfig;
using M = ModelConfig;
using D = DataConfig;
using T = TrainConfig;
using O = OptimizerConfig;

// clang-format off
constexpr Key table[] = {
    row<run, &R::dir>("run.dir", anything, may_change, "folder of the run; empty: runs/NAME for a configuration NAME.toml"),
    row<run, &R::seed>("run.seed", at_least_0, fixed, "seed of every random number: weights, order of samples, dropout"),
    row<run, &R::device>("run.device", anything, may_change, "where to compute; auto takes a GPU if this build and machine have one"),
    row<run, &R::precision>("run.precision", anything, fixed, "of activations and matrix products; bf16 keeps f32 master weights and sums"),
    row<run, &R::fresh>("run.fresh", anything, may_change, "start anew and want an empty folder instead of resuming"),
    row<run, &R::takeover>("run.takeover", anything, may_change, "start although another process on this host still trains in run.dir, which then ends"),
    row<run, &R::time_limit>("run.time_limit", at_least_0, may_change, "seconds after which to save and stop with exit code 85; 0: none"),
    row<run, &R::threads>("run.threads", few, may_change, "threads of a rank; 0: the cores that it may use, or the CPU quota of its control group if that is less, divided by the ranks that share them"),
    row<run, &R::watchdog>("run.watchdog", at_least_0, may_change, "seconds that a rank may hang, or ranks wait while none gets on, before all are ended; one call to sync or remove files may take four times that and a second for each MiB of the checkpoint; 0: no limit"),

    row<model, &M::family>("model.family", anything, fixed, "architecture: gpt (GPT-2), llama (rotary positions, RMSNorm, SwiGLU), or bert (an encoder that restores masked tokens)"),
    row<model, &M::layers>("model.layers", few_from_1, fixed, "number of blocks"),
    row<model, &M::width>("model.width", extent, fixed, "channels of the residual stream"),
    row<model, &M::heads>("model.heads", count_from_1, fixed, "query heads; divides the width"),
    row<model, &M::kv_heads>("model.kv_heads", count, fixed, "key and value heads; divides the heads; 0: as many as heads"),
    row<model, &M::feed_forward>("model.feed_forward", extent_or_0, fixed, "hidden channels of the feed-forward layer; 0: 4 x width (gpt, bert) or 8/3 x width rounded up to 128 (llama)"),
    row<model, &M::vocabulary>("model.vocabulary", count, fixed, "number of tokens; 0: that of the dataset's tokenizer, and for bert one more, the mask"),
    row<model, &M::context>("model.context", count, fixed, "longest sequence that the model can read; 0: train.sequence"),
    row<model, &M::dropout>("model.dropout", below_1, fixed, "probability that an activation is dropped in training"),
    row<model, &M::tied>("model.tied", anything, fixed, "share the token embedding with the output layer"),
    row<model, &M::qkv_bias>("model.qkv_bias", anything, fixed, "llama: a bias on queries, keys and values (Qwen2.5); a gpt always has it"),
    row<model, &M::rope_base>("model.rope_base", above_0, fixed, "base of the rotary positions' wavelengths (llama)"),
    row<model, &M::norm_epsilon>("model.norm_epsilon", above_0, fixed, "added to the variance in LayerNorm and RMSNorm"),
    row<model, &M::mask>("model.mask", below_1, fixed, "bert: share of the tokens that are to be restored; of these 80% are masked, 10% replaced by any token"),
    row<model, &M::token_types>("model.token_types", few_from_1, fixed, "bert: rows of the table of token types, of which text without types uses the first"),

    row<data, &D::path>("data.path", anything, may_change, "folder that muster prepare wrote; on resume the same data, which may lie elsewhere"),
    row<data, &D::source>("data.source", anything, may_change, "instead of data.path: tables [[data.source]] with path and weight, mixed in proportion, to 1/4096; evaluated is what the first holds out; on resume the paths may change, data and weights may not"),
    row<data, &D::verify>("data.verify", anything, may_change, "what to check of the data: all bytes at the start (full), or below 1 GiB (auto), and each block when it is read; or the sizes of files only (size)"),
    row<data, &D::documents>("data.documents", anything, fixed, "keep documents apart: no attention and no target across their borders; a sample keeps at most max(64, sequence / 16) apart, further ones are joined to the one before them"),
    row<data, &D::document_start>("data.document_start", anything, fixed, "what documents that are kept apart begin with: the end token before them, which so learns what documents begin with, or their first token, which nothing then predicts, as in runs of before this key"),

    row<train, &T::steps>("train.steps", count_from_1, may_change, "updates to make; the schedule ends there"),
    row<train, &T::batch>("train.batch", count_from_1, fixed, "sequences of a step, over all ranks"),
    row<train, &T::sequence>("train.sequence", count_from_1, fixed, "tokens of a sequence; a document that reaches beyond one is cut there, and the end of a shard that fills none is left out"),
    row<train, &T::shards>("train.shards", power_of_two, fixed_if_invariant, "invariant: parts of a batch that are summed over a fixed tree, at least the number of ranks; fast: only train.micro_batch = 0 looks at it"),
    row<train, &T::micro_batch>("train.micro_batch", count, fixed_if_invariant, "sequences computed at once; divides batch / shards (invariant) or batch (fast); 0: batch / shards, in fast mode less where that gives the ranks more even work"),
    row<train, &T::reduction>("train.reduction", anything, fixed, "invariant: the same bits on any number of ranks; fast: any order of summing, any number of ranks up to train.batch"),
    row<train, &T::sharding>("train.sharding", zero_or_one, may_change, "1: optimizer state divided among the ranks; 0: every rank holds all of it"),
    row<train, &T::recompute>("train.recompute", anything, may_change, "what backward computes again instead of keeping: nothing, norms and activation functions, or whole blocks"),

    row<optimizer, &O::kind>("optimizer.kind", anything, fixed, "what makes an update of a gradient: AdamW, or SGD with momentum"),
    row<optimizer, &O::lr>("optimizer.lr", above_0, fixed, "highest learning rate"),
    only<OptimizerKind::adamw>(row<optimizer, &O::betas>("optimizer.betas", below_1, fixed, "adamw: decay of the averages of the gradient and of its square")),
    only<OptimizerKind::adamw>(row<optimizer, &O::epsilon>("optimizer.epsilon", above_0, fixed, "adamw: added to the root of the averaged square")),
    only<OptimizerKind::sgd>(row<optimizer, &O::momentum>("optimizer.momentum", below_1, fixed, "sgd: share of the last update's direction that is kept; 0: none, and no state")),
    only<OptimizerKind::sgd>(row<optimizer, &O::nesterov>("optimizer.nesterov", anything, fixed, "sgd: look ahead by one step of the momentum")),
    row<optimizer, &O::weight_decay>("optimizer.weight_decay", at_least_0, fixed, "decay of matrices, none on norms and biases; adamw: apart from the gradient; sgd: part of the gradient, where 1e-4 is a usual value"),
    row<optimizer, &O::clip>("optimizer.clip", at_least_0, fixed, "largest global norm of the gradient; 0: no clipping"),

    row<schedule, &ScheduleConfig::kind>("schedule.kind", anything, fixed, "course of the learning rate after the warm-up"),
    row<schedule, &ScheduleConfig::warmup>("schedule.warmup", count, fixed, "steps over which the learning rate rises linearly to optimizer.lr"),
    row<schedule, &ScheduleConfig::final>("schedule.final", from_0_to_1, fixed, "learning rate at the end, as a fraction of optimizer.lr (cosine, linear)"),

    row<checkpoint, &CheckpointConfig::every>("checkpoint.every", count, may_change, "steps between checkpoints; 0: at the end only"),
    row<checkpoint, &CheckpointConfig::keep>("checkpoint.keep", count, may_change, "how many of the newest to keep; 0: all"),

    row<eval, &EvalConfig::every>("eval.every", count, may_change, "steps between evaluations on the validation part; 0: never"),
    row<eval, &EvalConfig::windows>("eval.windows", count, may_change, "validation sequences of an evaluation, the first ones; 0: all that the text fills"),
};
// clang-format on

// What the field, or other programs, call it.
struct OtherName {
  std::string_view name, key;
};
constexpr OtherName other_names[] = {
    {"learning_rate", "optimizer.lr"},
    {"max_lr", "optimizer.lr"},
    {"min_lr", "schedule.final"},
    {"lr_schedule", "schedule.kind"},
    {"lr_scheduler", "schedule.kind"},
    {"scheduler", "schedule.kind"},
    {"warmup_steps", "schedule.warmup"},
    {"warmup_iters", "schedule.warmup"},
    {"beta1", "optimizer.betas"},
    {"beta2", "optimizer.betas"},
    {"eps", "optimizer.epsilon"},
    {"decay", "optimizer.weight_decay"},
    {"wd", "optimizer.weight_decay"},
    {"grad_clip", "optimizer.clip"},
    {"max_grad_norm", "optimizer.clip"},
    {"gradient_clipping", "optimizer.clip"},
    {"batch_size", "train.batch"},
    {"bs", "train.batch"},
    {"global_batch_size", "train.batch"},
    {"micro_batch_size", "train.micro_batch"},
    {"per_device_train_batch_size", "train.micro_batch"},
    {"gradient_accumulation_steps", "train.micro_batch"},
    {"iters", "train.steps"},
    {"iterations", "train.steps"},
    {"max_iters", "train.steps"},
    {"max_steps", "train.steps"},
    {"num_steps", "train.steps"},
    {"seq_len", "train.sequence"},
    {"seq_length", "train.sequence"},
    {"sequence_length", "train.sequence"},
    {"max_length", "train.sequence"},
    {"block_size", "model.context"},
    {"context_length", "model.context"},
    {"max_position_embeddings", "model.context"},
    {"n_layer", "model.layers"},
    {"n_layers", "model.layers"},
    {"num_layers", "model.layers"},
    {"num_hidden_layers", "model.layers"},
    {"depth", "model.layers"},
    {"n_embd", "model.width"},
    {"d_model", "model.width"},
    {"dim", "model.width"},
    {"hidden_size", "model.width"},
    {"n_head", "model.heads"},
    {"n_heads", "model.heads"},
    {"num_heads", "model.heads"},
    {"num_attention_heads", "model.heads"},
    {"n_kv_heads", "model.kv_heads"},
    {"num_key_value_heads", "model.kv_heads"},
    {"d_ff", "model.feed_forward"},
    {"ffn", "model.feed_forward"},
    {"intermediate_size", "model.feed_forward"},
    {"vocab", "model.vocabulary"},
    {"vocab_size", "model.vocabulary"},
    {"rope_theta", "model.rope_base"},
    {"tie_word_embeddings", "model.tied"},
    {"dtype", "run.precision"},
    {"output", "run.dir"},
    {"output_dir", "run.dir"},
    {"out_dir", "run.dir"},
    {"dataset", "data.path"},
    {"data", "data.path"},
    {"save_every", "checkpoint.every"},
    {"save_steps", "checkpoint.every"},
    {"save_total_limit", "checkpoint.keep"},
    {"eval_every", "eval.every"},
    {"eval_interval", "eval.every"},
    {"eval_steps", "eval.every"},
    {"eval_iters", "eval.windows"},
};

std::string_view kind_text(KeyKind kind) {
  switch (kind) {
    case KeyKind::boolean:
      return "true or false";
    case KeyKind::integer:
      return "a whole number";
    case KeyKind::number:
      return "a number";
    case KeyKind::pair:
      return "two numbers, like [0.9, 0.95], each";
    case KeyKind::text:
      return "a text";
    case KeyKind::choice:
      return "one of";
    case KeyKind::sources:
      return "tables [[data.source]] with path and weight";
  }
  return {};
}

bool obeys(const KeyRule& rule, double value) {
  return std::isfinite(value) && (rule.holds == nullptr || rule.holds(value));
}

bool fits(const Key& key, const KeyValue& value) {
  switch (key.kind) {
    case KeyKind::boolean:
      return std::holds_alternative<bool>(value);
    case KeyKind::integer: {
      const auto* number = std::get_if<std::int64_t>(&value);
      return number != nullptr && obeys(key.rule, static_cast<double>(*number));
    }
    case KeyKind::number: {
      const auto* number = std::get_if<double>(&value);
      return number != nullptr && obeys(key.rule, *number);
    }
    case KeyKind::pair: {
      const auto* pair = std::get_if<std::array<double, 2>>(&value);
      return pair != nullptr && obeys(key.rule, (*pair)[0]) && obeys(key.rule, (*pair)[1]);
    }
    case KeyKind::text:
      return std::holds_alternative<std::string>(value);
    case KeyKind::choice: {
      const auto* text = std::get_if<std::string>(&value);
      return text != nullptr && std::ranges::find(key.choices, *text) != key.choices.end();
    }
    case KeyKind::sources:
      return std::holds_alternative<std::vector<DataSource>>(value);
  }
  return false;
}

bool parse_pair(std::string_view text, std::array<double, 2>& pair) {
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  const std::size_t comma = text.find(',');
  if (comma == std::string_view::npos) return false;
  std::string_view second = text.substr(comma + 1);
  while (second.starts_with(' ')) second.remove_prefix(1);
  const auto a = parse_number<double>(text.substr(0, comma)), b = parse_number<double>(second);
  if (a && b) pair = {*a, *b};
  return a && b;
}

std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

std::span<const Key> keys() { return table; }

bool belongs(const Key& key, const Config& config) {
  if (key.section() == "model") return family_of(config.model).has_key(key.field());
  return key.belongs == nullptr || key.belongs(config);
}

bool may_change_on_resume(const Key& key, const Config& config) {
  if (key.on_resume == OnResume::fixed_if_invariant) return config.train.reduction == Reduction::fast;
  return key.on_resume == OnResume::may_change;
}

void refuse_value(const Key& key, std::string_view shown, std::string_view where) {
  throw UserError("{}: {} = {} will not do; it must be {}", where, key.name, shown, expectation(key));
}

const Key& find_key(std::string_view name, std::string_view where) {
  const auto found = std::ranges::find(table, name, &Key::name);
  if (found != std::end(table)) return *found;
  const std::string suggestion = suggested_key(name);
  if (suggestion.empty()) throw UserError("{}: unknown key {}; muster train --help lists all", where, name);
  throw UserError("{}: unknown key {}; did you mean {}?", where, name, suggestion);
}

std::size_t most_slips(std::string_view name) {
  return std::max<std::size_t>(1, std::min<std::size_t>(3, name.size() / 3));
}

std::string suggested_key(std::string_view name) {
  std::string spelt(name);
  std::ranges::transform(spelt, spelt.begin(),
                         [](unsigned char c) { return c == '-' ? '_' : static_cast<char>(std::tolower(c)); });
  const std::string section = spelt.substr(0, spelt.find('.') == std::string::npos ? 0 : spelt.find('.')),
                    field = spelt.substr(spelt.rfind('.') + 1);
  if (const auto other = std::ranges::find(other_names, std::string_view(field), &OtherName::name);
      other != std::end(other_names))
    return std::string(other->key);
  // A slip in the field weighs more than another section, and a slip in the section breaks ties.
  const Key* best = nullptr;
  std::size_t least = 0;
  for (const Key& key : table) {
    const std::size_t in_field = edit_distance(field, key.field());
    const std::size_t in_section = section.empty() ? 0 : edit_distance(section, key.section());
    if (in_field > most_slips(field)) continue;
    if (const std::size_t weight = 100 * in_field + std::min<std::size_t>(in_section, 99);
        best == nullptr || weight < least) {
      best = &key;
      least = weight;
    }
  }
  return best == nullptr ? "" : std::string(best->name);
}

std::string expectation(const Key& key) {
  std::string text(kind_text(key.kind));
  if (key.kind == KeyKind::choice) return fmt::format("{} {}", text, fmt::join(key.choices, ", "));
  if (!key.rule.text.empty())
    text += fmt::format("{} {}", key.kind == KeyKind::pair ? "" : ",", key.rule.text);
  return text;
}

void set_key(Config& config, const Key& key, KeyValue value, std::string_view where) {
  if (const auto* whole = std::get_if<std::int64_t>(&value);
      whole != nullptr && key.kind == KeyKind::number) {
    value = static_cast<double>(*whole);
  }
  if (!fits(key, value)) {
    const bool has_text =
        !std::holds_alternative<std::vector<DataSource>>(value) && key.kind != KeyKind::sources;
    refuse_value(key, has_text ? toml_value(value) : "this", where);
  }
  key.set(config, value);
}

KeyValue parse_value(const Key& key, std::string_view text, std::string_view where) {
  bool read = false;
  KeyValue value = std::string(text);
  switch (key.kind) {
    case KeyKind::boolean:
      value = text == "true";
      read = text == "true" || text == "false";
      break;
    case KeyKind::integer: {
      const auto number = parse_number<std::int64_t>(text);
      read = number.has_value();
      value = number.value_or(0);
      break;
    }
    case KeyKind::number: {
      const auto number = parse_number<double>(text);
      read = number.has_value();
      value = number.value_or(0);
      break;
    }
    case KeyKind::pair: {
      std::array<double, 2> pair{};
      read = parse_pair(text, pair);
      value = pair;
      break;
    }
    case KeyKind::text:
      if (!is_utf8(text))
        throw UserError("{}: {} is not UTF-8, as the files of a run are: rename the file, or use a link",
                        where, key.name);
      read = true;
      break;
    case KeyKind::choice:
      read = true;
      break;
    case KeyKind::sources:
      throw UserError("{}: {} can only be set in the configuration file; use --data.path for one dataset",
                      where, key.name);
  }
  if (!read) refuse_value(key, text, where);
  return value;
}

std::string toml_value(const KeyValue& value) {
  struct Spell {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{}", v); }
    std::string operator()(const std::array<double, 2>& v) const {
      return fmt::format("[{}, {}]", v[0], v[1]);
    }
    std::string operator()(const std::string& v) const { return toml_text(v); }
    std::string operator()(const std::vector<DataSource>&) const {
      throw Defect("sources are written as tables, not as a value");
    }
  };
  return std::visit(Spell{}, value);
}

}  // namespace muster
