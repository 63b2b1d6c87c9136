// What a checkpoint tells of its run beside the tensors: how far it was, what it was told, and on which data.
#pragma once

#include <string>
#include <vector>

#include "trainer/config/config.hpp"
#include "trainer/step/position.hpp"

namespace muster {

// What tells a source of data apart from any other, wherever its folder lies: its content and its share of
// the mix.
struct SourceIdentity {
  std::string path;
  double weight = 1;
  std::string content;  // hash over the tokenizer's and the training shards' hashes
};

struct RunState {
  Position position;
  std::string config;       // the resolved configuration, TOML
  std::string tokenizer;    // its description, whole
  std::string fingerprint;  // what the bits depend on beside the configuration
  std::vector<SourceIdentity> sources;
};
std::string to_json(const RunState& state, const Config& config);
// Throws UserError naming `path` when the text is not what to_json writes.
RunState run_state_from(const std::string& json, const std::string& path);

}  // namespace muster
