#include "trainer/config/read.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <iterator>
#include <optional>
#include <toml++/toml.h>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/text.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

const std::string command_line = "command line";

std::string place(const std::string& file, const toml::node& node) {
  return fmt::format("{}:{}", file, node.source().begin.line);
}

DataSource read_source(const toml::table& table, const std::string& file) {
  DataSource source;
  for (const auto& [name, node] : table) {
    const std::string where = place(file, node);
    if (name == "path") {
      const auto path = node.value_exact<std::string>();
      if (!path) throw UserError("{}: data.source.path must be a text", where);
      source.path = *path;
    } else if (name == "weight") {
      const auto weight = node.value<double>();
      if (!weight || !std::isfinite(*weight) || *weight <= 0)
        throw UserError("{}: data.source.weight must be a number greater than 0", where);
      source.weight = *weight;
    } else {
      throw UserError("{}: unknown key data.source.{}; a source has path and weight", where, name.str());
    }
  }
  if (source.path.empty())
    throw UserError("{}: this data.source has no path; add path = \"FOLDER\"", place(file, table));
  return source;
}

std::optional<std::array<double, 2>> read_pair(const toml::array& array) {
  if (array.size() != 2) return std::nullopt;
  const auto a = array[0].value<double>(), b = array[1].value<double>();
  if (!a || !b) return std::nullopt;
  return std::array{*a, *b};
}

KeyValue read_node(const Key& key, const toml::node& node, const std::string& file) {
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* array = node.as_array()) {
    if (array->is_array_of_tables()) {
      std::vector<DataSource> sources;
      for (const auto& entry : *array) sources.push_back(read_source(*entry.as_table(), file));
      return sources;
    }
    if (const auto pair = read_pair(*array)) return *pair;
  }
  refuse_value(key,
               node.is_array()   ? "this list"
               : node.is_table() ? "this table"
                                 : "this",
               place(file, node));
}

// A key that somebody set, and where.
struct Given {
  const Key* key;
  std::string where;
};

struct Parsed {
  Config config;
  std::vector<Given> given;
};

void read_section(Parsed& parsed, std::string_view section, const toml::table& table,
                  const std::string& file) {
  for (const auto& [field, node] : table) {
    const std::string where = place(file, node);
    const Key& key = find_key(fmt::format("{}.{}", section, field.str()), where);
    set_key(parsed.config, key, read_node(key, node, file), where);
    parsed.given.push_back({&key, where});
  }
}

bool is_override(std::string_view argument) {
  if (!argument.starts_with("--")) return false;
  return argument.substr(0, argument.find('=')).find('.') != std::string_view::npos;
}

bool is_boolean(std::string_view name) {
  for (const Key& key : keys()) {
    if (key.name == name) return key.kind == KeyKind::boolean;
  }
  return false;
}

// Where the text that starts at `at` with a quote ends: behind its quotes, or where its line or the file ends without them.
std::size_t end_of_quoted(std::string_view toml, std::size_t at) {
  const char quote = toml[at];
  const bool long_text = toml.substr(at).starts_with(std::string(3, quote));
  const std::string quotes(long_text ? 3 : 1, quote);
  for (at += quotes.size(); at < toml.size(); ++at) {
    if (toml[at] == '\n' && !long_text) return at;
    if (toml.substr(at).starts_with(quotes)) {
      at += quotes.size();
      for (int own = 0; own < 2 && long_text && at < toml.size() && toml[at] == quote; ++own) ++at;
      return at;
    }
    if (quote == '"' && toml[at] == '\\') ++at;
  }
  return toml.size();
}

// Each part of a dotted key nests a table, and the parser, which bounds nested values, follows keys of any number of parts
// until the stack ends.
void refuse_keys_of_many_parts(std::string_view toml, const std::string& name) {
  constexpr int most_dots = 16;  // of those that there are, keys have one
  int dots = 0;
  for (std::size_t at = 0; at < toml.size();) {
    const char c = toml[at];
    if (c == '"' || c == '\'') {
      at = end_of_quoted(toml, at);
      continue;
    }
    if (c == '#') {
      at = std::min(toml.find('\n', at), toml.size());
      continue;
    }
    if (std::string_view("\n=,[]{}").find(c) != std::string_view::npos) dots = 0;
    if (c == '.' && ++dots > most_dots)
      throw UserError("{}:{}: a key of more than {} parts; muster train --help lists all", name,
                      1 + std::ranges::count(toml.substr(0, at), '\n'), most_dots + 1);
    ++at;
  }
}

// A run is gone on with from any folder, and keeps where its data lie. Links stay links; a folder that UTF-8 cannot name
// has no place in a file of a run.
void make_absolute(std::string& path) {
  if (path.empty()) return;
  fs::path whole = fs::absolute(path);
  if (std::ranges::find(whole, "..") == whole.end()) whole = whole.lexically_normal();
  if (is_utf8(whole.string())) path = whole.string();
}

Parsed parse(std::string_view text, const std::string& name) {
  refuse_keys_of_many_parts(text, name);
  Parsed parsed;
  try {
    const toml::table root = toml::parse(text, name);
    for (const auto& [section, node] : root) {
      const toml::table* table = node.as_table();
      // A key outside the sections, or a section that nothing knows.
      if (table == nullptr || table->empty()) {
        bool known = false;
        for (const Key& key : keys()) known = known || key.section() == section.str();
        if (table == nullptr || !known) find_key(section.str(), place(name, node));
      }
      if (table != nullptr) read_section(parsed, section.str(), *table, name);
    }
  } catch (const toml::parse_error& error) {
    throw UserError("{}:{}: {}", name, error.source().begin.line, error.description());
  }
  return parsed;
}

// Only when all is told: what a key belongs to may be told after it.
void refuse_keys_without_use(const Config& config, const std::vector<Given>& given) {
  for (const auto& [key, where] : given) {
    if (belongs(*key, config)) continue;
    const Key& decides = find_key(key->decided_by, where);
    throw UserError("{}: {} = {} has no {}; leave it out, or choose another {}", where, decides.name,
                    toml_value(decides.get(config)), key->name, decides.name);
  }
}

std::string shown(const KeyValue& value) {
  const auto* sources = std::get_if<std::vector<DataSource>>(&value);
  return sources == nullptr ? toml_value(value) : fmt::format("{} sources", sources->size());
}

}  // namespace

std::vector<Override> take_overrides(std::vector<std::string>& arguments) {
  std::vector<Override> overrides;
  std::vector<std::string> others;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!is_override(argument)) {
      others.push_back(argument);
      continue;
    }
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (equals != std::string::npos) {
      overrides.push_back({name, argument.substr(equals + 1)});
      continue;
    }
    const bool has_next = i + 1 < arguments.size() && !arguments[i + 1].starts_with("--");
    if (is_boolean(name)) {
      const bool spelt = has_next && (arguments[i + 1] == "true" || arguments[i + 1] == "false");
      overrides.push_back({name, spelt ? arguments[++i] : "true"});
    } else if (has_next) {
      overrides.push_back({name, arguments[++i]});
    } else {
      throw UserError("command line: --{} has no value; write --{}=VALUE", name, name);
    }
  }
  arguments = std::move(others);
  return overrides;
}

Config parse_config(std::string_view text, const std::string& name) {
  const Parsed parsed = parse(text, name);
  refuse_keys_without_use(parsed.config, parsed.given);
  return parsed.config;
}

Config parse_resolved_config(std::string_view text, const std::string& name) {
  Config config = parse_config(text, name);
  const toml::table root = toml::parse(text, name);
  if (config.data.documents && !root.at_path("data.document_start"))
    config.data.document_start = DocumentStart::first_token;
  return config;
}

void apply_overrides(Config& config, std::span<const Override> overrides) {
  for (const Override& entry : overrides) {
    const Key& key = find_key(entry.key, command_line);
    set_key(config, key, parse_value(key, entry.value, command_line), command_line);
    if (key.name == "data.path") config.data.source.clear();
  }
}

Config read_config(const std::string& path, std::span<const Override> overrides) {
  std::error_code unreadable;  // is told when the file is opened
  const bool is_run = fs::is_directory(path, unreadable);
  const std::string file = is_run ? (fs::path(path) / "config.toml").string() : path;
  std::vector<Given> given;
  Config config;
  if (is_run) {
    config = parse_resolved_config(read_text(file), file);
    config.run.dir = path;
    config.run.fresh = config.run.takeover = false;
  } else {
    Parsed parsed = parse(read_text(file), file);
    config = std::move(parsed.config);
    given = std::move(parsed.given);
  }
  apply_overrides(config, overrides);
  for (const Override& entry : overrides) given.push_back({&find_key(entry.key, command_line), command_line});
  refuse_keys_without_use(config, given);
  make_absolute(config.data.path);
  for (DataSource& source : config.data.source) make_absolute(source.path);
  if (config.run.dir.empty()) config.run.dir = (fs::path("runs") / fs::path(file).stem()).string();
  if (!is_utf8(config.run.dir))
    throw UserError(
        "{}: the name is not UTF-8, as the files of a run are: rename it, or name another run.dir", file);
  resolve(config);
  check_relations(config);
  return config;
}

std::string to_toml(const Config& config) {
  std::string text = "# The resolved configuration of this run: every key, with the defaults filled in.\n";
  std::string_view section;
  std::string sources;  // tables of [data], after its last key
  for (const Key& key : keys()) {
    if (key.section() != section) {
      section = key.section();
      text += fmt::format("{}\n[{}]\n", std::exchange(sources, {}), section);
    }
    if (!belongs(key, config)) continue;
    const KeyValue value = key.get(config);
    if (const auto* list = std::get_if<std::vector<DataSource>>(&value)) {
      for (const DataSource& source : *list) {
        sources += fmt::format("\n[[{}]]\npath = {}\nweight = {}\n", key.name, toml_value(source.path),
                               toml_value(source.weight));
      }
      continue;
    }
    text += fmt::format("{} = {}\n", key.field(), toml_value(value));
  }
  return text + sources;
}

std::vector<const Key*> changed_keys(const Config& before, const Config& after) {
  std::vector<const Key*> changed;
  for (const Key& key : keys()) {
    if (key.get(before) != key.get(after)) changed.push_back(&key);
  }
  return changed;
}

void refuse_another_model(const Config& of_checkpoint, const Config& config, const std::string& checkpoint) {
  for (const Key* key : changed_keys(of_checkpoint, config)) {
    if (key->section() != "model") continue;
    throw UserError("{} was trained with {} = {}, and the configuration of {} says {}: restore that key",
                    checkpoint, key->name, shown(key->get(of_checkpoint)), config.run.dir,
                    shown(key->get(config)));
  }
}

void refuse_fixed_changes(const Config& before, const Config& after) {
  for (const Key* key : changed_keys(before, after)) {
    if (may_change_on_resume(*key, before)) continue;
    throw UserError(
        "{} may not change on resume: the run in {} has {}, now it is {}; restore it, or start a new run "
        "with another run.dir",
        key->name, after.run.dir, shown(key->get(before)), shown(key->get(after)));
  }
}

}  // namespace muster
