#include "trainer/config/reference.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "trainer/config/keys.hpp"

namespace muster {
namespace {

std::string_view on_resume(const Key& key) {
  switch (key.on_resume) {
    case OnResume::fixed:
      return "fixed";
    case OnResume::fixed_if_invariant:
      return "fixed if invariant";
    case OnResume::may_change:
      return "may change";
  }
  return {};
}

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
      "where and how comfortably a run runs may change, the number of ranks too. What is *fixed if "
      "invariant* "
      "belongs\n"
      "to the arithmetic that `train.reduction = \"invariant\"` promises to repeat; with `fast`, which "
      "divides a "
      "batch\n"
      "by the ranks, it may change. A dataset may move to another path; it is known by its content, and the "
      "weights of\n"
      "a mixture are fixed. `train.steps` may change to make a run longer; schedules that end there then "
      "follow the\n"
      "new end.\n";
  std::string_view section;
  for (const Key& key : keys()) {
    if (key.section() != section) {
      section = key.section();
      text += fmt::format(
          "\n## [{}]\n\n| key | default | value | on resume | meaning |\n|---|---|---|---|---|\n", section);
    }
    const std::string value = default_of(key);
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", key.name,
                        value.empty() ? "" : fmt::format("`{}`", value), expectation(key), on_resume(key),
                        key.meaning);
  }
  return text;
}

}  // namespace muster
