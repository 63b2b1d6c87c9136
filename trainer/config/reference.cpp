#include "trainer/config/reference.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "trainer/config/keys.hpp"

namespace muster {
namespace {

std::string default_of(const Key& key) {
  const KeyValue value = key.get(Config{});
  if (key.kind == KeyKind::sources) return "";
  const auto* text = std::get_if<std::string>(&value);
  return text == nullptr ? toml_value(value) : *text;
}

}  // namespace

std::string keys_as_help() {
  std::string text = "Keys, with their defaults (in a file: sections [run], [model], ...):";
  for (const Key& key : keys()) {
    // A file writes [[data.source]]; it has no form on the command line.
    const std::string spelt = key.kind == KeyKind::sources
                                  ? fmt::format("[[{}]]", key.name)
                                  : fmt::format("--{}={}", key.name, default_of(key));
    text += fmt::format("\n  {:<34} {}", spelt, key.meaning);
    if (!key.choices.empty()) text += fmt::format(" [{}]", fmt::join(key.choices, ", "));
  }
  return text;
}

std::string keys_as_markdown() {
  std::string text =
      "# Configuration\n\n"
      "<!-- Written from the table in trainer/config/keys.cpp by its test: "
      "MUSTER_WRITE_DOCS=1 build/release/tests/trainer_tests --gtest_filter='Reference.*' -->\n\n"
      "A configuration is a TOML file. Any key but `data.source` can also be given on the command line, as "
      "`--train.steps=100` "
      "or\n"
      "`--train.steps 100`, which wins over the file. An unknown key is refused with the nearest known one. "
      "The\n"
      "resolved configuration, with the defaults filled in, is written to `config.toml` in the run's folder; "
      "`muster\ntrain FOLDER` goes on with it.\n\n"
      "A key marked *fixed* may not change when a run resumes: the samples, the random numbers or the "
      "arithmetic of\n"
      "its updates depend on it. So a resumed run arrives where the undisturbed run arrives. What only says "
      "how long,\n"
      "where and how comfortably a run runs may change. A dataset may move to another path; it is known by "
      "its\n"
      "content. `train.steps` may change to make a run longer; schedules that end there then follow the new "
      "end.\n";
  std::string_view section;
  for (const Key& key : keys()) {
    if (key.section() != section) {
      section = key.section();
      text += fmt::format(
          "\n## [{}]\n\n| key | default | value | on resume | meaning |\n|---|---|---|---|---|\n", section);
    }
    const std::string value = default_of(key);
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", key.name,
                        value.empty() ? "" : fmt::format("`{}`", value), expectation(key),
                        key.on_resume == OnResume::fixed ? "fixed" : "may change", key.meaning);
  }
  return text;
}

}  // namespace muster
