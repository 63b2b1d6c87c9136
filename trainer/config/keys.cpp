#include "trainer/config/keys.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits>
#include <type_traits>

#include "core/error.hpp"
#include "core/text.hpp"

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
          .meaning = meaning};
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

// Fixed on resume is whatever the samples, the random numbers or the arithmetic of an update depend on: a
// resumed run must arrive where the undisturbed one arrives, so a change of these is a new run. What only
// says how long, where and how comfortably it runs may change. The dataset may move to another path: the
// checkpoint's manifest knows it by its content, not by its path.
constexpr OnResume fixed = OnResume::fixed, may_change = OnResume::may_change;

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
    row<run, &R::time_limit>("run.time_limit", at_least_0, may_change, "seconds after which to save and stop with exit code 85; 0: none"),
    row<run, &R::threads>("run.threads", few, may_change, "threads of a rank; 0: the cores that it may use, divided by the ranks that share them"),
    row<run, &R::watchdog>("run.watchdog", at_least_0, may_change, "seconds that a collective may take before all ranks are ended; 0: no limit"),

    row<model, &M::family>("model.family", anything, fixed, "architecture: gpt (GPT-2) or llama (rotary positions, RMSNorm, SwiGLU)"),
    row<model, &M::layers>("model.layers", few_from_1, fixed, "number of blocks"),
    row<model, &M::width>("model.width", extent, fixed, "channels of the residual stream"),
    row<model, &M::heads>("model.heads", count_from_1, fixed, "query heads; divides the width"),
    row<model, &M::kv_heads>("model.kv_heads", count, fixed, "key and value heads; divides the heads; 0: as many as heads"),
    row<model, &M::feed_forward>("model.feed_forward", extent_or_0, fixed, "hidden channels of the feed-forward layer; 0: 4 x width (gpt) or 8/3 x width rounded up to 128 (llama)"),
    row<model, &M::vocabulary>("model.vocabulary", count, fixed, "number of tokens; 0: that of the dataset's tokenizer"),
    row<model, &M::context>("model.context", count, fixed, "longest sequence that the model can read; 0: train.sequence"),
    row<model, &M::dropout>("model.dropout", below_1, fixed, "probability that an activation is dropped in training"),
    row<model, &M::tied>("model.tied", anything, fixed, "share the token embedding with the output layer"),
    row<model, &M::qkv_bias>("model.qkv_bias", anything, fixed, "llama: a bias on queries, keys and values (Qwen2.5); a gpt always has it"),
    row<model, &M::rope_base>("model.rope_base", above_0, fixed, "base of the rotary positions' wavelengths (llama)"),
    row<model, &M::norm_epsilon>("model.norm_epsilon", above_0, fixed, "added to the variance in LayerNorm and RMSNorm"),

    row<data, &D::path>("data.path", anything, may_change, "folder that muster prepare wrote"),
    row<data, &D::source>("data.source", anything, may_change, "instead of data.path: tables [[data.source]] with path and weight, mixed in proportion"),
    row<data, &D::verify>("data.verify", anything, may_change, "what to check of the data: all bytes at the start (full), or below 1 GiB (auto), and each block when it is read; or the sizes of files only (size)"),
    row<data, &D::documents>("data.documents", anything, fixed, "keep documents apart: no attention and no target across their borders"),

    row<train, &T::steps>("train.steps", count_from_1, may_change, "updates to make; the schedule ends there"),
    row<train, &T::batch>("train.batch", count_from_1, fixed, "sequences of a step, over all ranks"),
    row<train, &T::sequence>("train.sequence", count_from_1, fixed, "tokens of a sequence"),
    row<train, &T::shards>("train.shards", power_of_two, fixed, "parts of a batch that are summed over a fixed tree; at least the number of ranks in invariant mode"),
    row<train, &T::micro_batch>("train.micro_batch", count, fixed, "sequences computed at once; divides batch / shards; 0: batch / shards"),
    row<train, &T::reduction>("train.reduction", anything, fixed, "invariant: the same bits on any number of ranks; fast: any order of summing"),
    row<train, &T::sharding>("train.sharding", zero_or_one, may_change, "1: optimizer state divided among the ranks; 0: every rank holds all of it"),
    row<train, &T::recompute>("train.recompute", anything, may_change, "what backward computes again instead of keeping: nothing, norms and activation functions, or whole blocks"),

    row<optimizer, &O::lr>("optimizer.lr", above_0, fixed, "highest learning rate of AdamW"),
    row<optimizer, &O::betas>("optimizer.betas", below_1, fixed, "decay of the averages of the gradient and of its square"),
    row<optimizer, &O::epsilon>("optimizer.epsilon", above_0, fixed, "added to the root of the averaged square"),
    row<optimizer, &O::weight_decay>("optimizer.weight_decay", at_least_0, fixed, "decoupled decay of matrices; none on norms and biases"),
    row<optimizer, &O::clip>("optimizer.clip", at_least_0, fixed, "largest global norm of the gradient; 0: no clipping"),

    row<schedule, &ScheduleConfig::kind>("schedule.kind", anything, fixed, "course of the learning rate after the warm-up"),
    row<schedule, &ScheduleConfig::warmup>("schedule.warmup", count, fixed, "steps over which the learning rate rises linearly to optimizer.lr"),
    row<schedule, &ScheduleConfig::final>("schedule.final", from_0_to_1, fixed, "learning rate at the end, as a fraction of optimizer.lr (cosine, linear)"),

    row<checkpoint, &CheckpointConfig::every>("checkpoint.every", count, may_change, "steps between checkpoints; 0: at the end only"),
    row<checkpoint, &CheckpointConfig::keep>("checkpoint.keep", count, may_change, "how many of the newest to keep; 0: all"),

    row<eval, &EvalConfig::every>("eval.every", count, may_change, "steps between evaluations on the validation part; 0: never"),
    row<eval, &EvalConfig::windows>("eval.windows", count, may_change, "validation sequences of an evaluation; 0: all"),
};
// clang-format on

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

template <class Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

bool parse_pair(std::string_view text, std::array<double, 2>& pair) {
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  const std::size_t comma = text.find(',');
  if (comma == std::string_view::npos) return false;
  std::string_view second = text.substr(comma + 1);
  while (second.starts_with(' ')) second.remove_prefix(1);
  return parse_number(text.substr(0, comma), pair[0]) && parse_number(second, pair[1]);
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

void refuse_value(const Key& key, std::string_view shown, std::string_view where) {
  throw UserError("{}: {} = {} will not do; it must be {}", where, key.name, shown, expectation(key));
}

const Key& find_key(std::string_view name, std::string_view where) {
  const auto found = std::ranges::find(table, name, &Key::name);
  if (found != std::end(table)) return *found;
  // A name without its section is compared with the names without theirs.
  const bool bare = name.find('.') == std::string_view::npos;
  std::vector<std::string> names;
  for (const Key& key : table) names.emplace_back(bare ? key.field() : key.name);
  const auto nearest = std::ranges::find(names, nearest_name(name, names)) - names.begin();
  throw UserError("{}: unknown key {}; did you mean {}?", where, name, table[nearest].name);
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
      std::int64_t number = 0;
      read = parse_number(text, number);
      value = number;
      break;
    }
    case KeyKind::number: {
      double number = 0;
      read = parse_number(text, number);
      value = number;
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
