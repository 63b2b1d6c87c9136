// A configuration in and out: TOML and the command line into a Config, a Config into the resolved
// config.toml, and what may differ between the two when a run resumes.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/config/config.hpp"
#include "trainer/config/keys.hpp"

namespace muster {

// A key on the command line: --train.steps=100 or --train.steps 100; --run.fresh alone means true.
struct Override {
  std::string key;
  std::string value;
};

// Takes the overrides out of `arguments`: whatever starts with -- and has a dot in its name.
std::vector<Override> take_overrides(std::vector<std::string>& arguments);

// Reads `text`, TOML, over the defaults; `name` is what errors call the file.
Config parse_config(std::string_view text, const std::string& name);
// Of a run's own configuration, which names every key that there was when it was written: younger ones stand for what was
// done before them.
Config parse_resolved_config(std::string_view text, const std::string& name);
void apply_overrides(Config& config, std::span<const Override> overrides);

// The configuration of file `path`, or of the run in folder `path`, with the overrides applied, resolved and
// checked.
Config read_config(const std::string& path, std::span<const Override> overrides);

// Every key that this configuration has; reading it gives the same Config, bit for bit.
std::string to_toml(const Config& config);

std::vector<const Key*> changed_keys(const Config& before, const Config& after);
// Throws UserError that names the first key of [model] by which a checkpoint's own configuration differs.
void refuse_another_model(const Config& of_checkpoint, const Config& config, const std::string& checkpoint);
// Throws UserError that names the first changed key that is fixed on resume.
void refuse_fixed_changes(const Config& before, const Config& after);

}  // namespace muster
