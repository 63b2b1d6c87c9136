#include "trainer/checkpoint/run_state.hpp"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.hpp"
#include "trainer/config/keys.hpp"

namespace muster {

std::string to_json(const RunState& state, const Config& config) {
  nlohmann::ordered_json data = nlohmann::ordered_json::array();
  for (const SourceIdentity& source : state.sources)
    data.push_back({{"path", source.path}, {"weight", source.weight}, {"content", source.content}});
  std::vector<std::string_view> may_change;
  for (const Key& key : keys())
    if (may_change_on_resume(key, config)) may_change.push_back(key.name);
  const std::int64_t samples = state.position.step * config.train.batch;
  const nlohmann::ordered_json json = {
      {"samples", samples},
      {"tokens", samples * config.train.sequence},
      {"step", state.position.step},
      {"updates", state.position.updates},
      {"targets", state.position.targets},
      {"shards", config.train.shards},
      {"micro_batch", config.train.micro_batch},
      {"data", data},
      {"tokenizer", state.tokenizer},
      {"fingerprint", state.fingerprint},
      {"config", state.config},
      {"may_change", may_change},
  };
  return json.dump();
}

RunState run_state_from(const std::string& json, const std::string& path) {
  try {
    const auto parsed = nlohmann::json::parse(json);
    // The library would take any number for a whole one, whether it fits or not.
    const auto count = [&](const char* key) {
      const auto& value = parsed.at(key);
      if (!value.is_number_integer())
        throw UserError("{}: its manifest tells {} = {}, which is no count; use another checkpoint", path,
                        key, value.dump());
      return value.template get<std::int64_t>();
    };
    RunState state;
    state.position.step = count("step");
    state.position.updates = count("updates");
    state.position.targets = count("targets");
    state.config = parsed.at("config").get<std::string>();
    state.tokenizer = parsed.at("tokenizer").get<std::string>();
    state.fingerprint = parsed.at("fingerprint").get<std::string>();
    for (const auto& source : parsed.at("data"))
      state.sources.push_back({source.at("path").get<std::string>(), source.at("weight").get<double>(),
                               source.at("content").get<std::string>()});
    return state;
  } catch (const nlohmann::json::exception& error) {
    throw UserError("{}: its manifest does not tell the state of a run ({}); use another checkpoint", path,
                    error.what());
  }
}

}  // namespace muster
