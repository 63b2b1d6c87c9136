// The table of configuration keys: one row a key with its meaning, its rule and whether it may change on
// resume.
//
// Everything that knows keys by name reads this table: TOML, command-line overrides, the resolved
// config.toml, the comparison on resume, the help of `muster train` and docs/configuration.md. To add a key:
// a field in config.hpp and a row in keys.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "trainer/config/config.hpp"

namespace muster {

// A key's value apart from its section; an enum travels as its spelling.
using KeyValue =
    std::variant<bool, std::int64_t, double, std::array<double, 2>, std::string, std::vector<DataSource>>;

enum class KeyKind : std::uint8_t { boolean, integer, number, pair, text, choice, sources };
enum class OnResume : std::uint8_t { fixed, fixed_if_invariant, may_change };

// What a number must satisfy beyond its type. An empty `text` means anything finite.
struct KeyRule {
  std::string_view text;
  bool (*holds)(double) = nullptr;
};

struct Key {
  std::string_view name;  // "train.batch"
  KeyKind kind;
  KeyValue (*get)(const Config&);
  void (*set)(Config&, const KeyValue&);      // the value must fit: call set_key
  std::span<const std::string_view> choices;  // of a choice
  KeyRule rule;
  OnResume on_resume;
  std::string_view meaning;
  // Null: always a key. Else of the configurations for which it holds, as optimizer.betas is of AdamW's; the key that
  // decides is `decided_by`.
  bool (*belongs)(const Config&) = nullptr;
  std::string_view decided_by = {};

  std::string_view section() const { return name.substr(0, name.find('.')); }
  std::string_view field() const { return name.substr(name.find('.') + 1); }
};

std::span<const Key> keys();
// Of a run with this configuration.
bool may_change_on_resume(const Key& key, const Config& config);
// Throws UserError, starting with `where`, that names the key that may have been meant.
const Key& find_key(std::string_view name, std::string_view where);
// Whether this configuration has such a key: one that decides another way has no use for it.
bool belongs(const Key& key, const Config& config);
// The key whose name, with another section or without one, or in the words of other programs, is like this; empty if none
// is.
std::string suggested_key(std::string_view name);
// How many letters of a name may differ where it is still like another.
std::size_t most_slips(std::string_view name);

// "a whole number, at least 1"; "one of f32, bf16".
std::string expectation(const Key& key);
// Throws UserError naming `where`, the key, the value as it was `shown` and what is expected.
[[noreturn]] void refuse_value(const Key& key, std::string_view shown, std::string_view where);
// Refuses unless `value` has its type and obeys its rule.
// A whole number is taken where a number is expected.
void set_key(Config& config, const Key& key, KeyValue value, std::string_view where);
// The value that `text` spells on a command line; refuses as set_key does.
KeyValue parse_value(const Key& key, std::string_view text, std::string_view where);
// As it stands in a TOML file; numbers with all digits they need to come back exactly. Not for sources.
std::string toml_value(const KeyValue& value);

}  // namespace muster
