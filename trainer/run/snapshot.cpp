#include "trainer/run/snapshot.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.hpp"
#include "core/hash.hpp"
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

std::vector<Slice> slices(const RunPlan& plan, ModelState& state, const Buffer& copy) {
  std::vector<Slice> all;
  for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
    const Range piece = plan.own_piece(b);
    for (const Segment& segment : segments(plan.parameters(), piece)) {
      const Parameter& parameter = plan.parameters()[segment.parameter];
      const auto size = static_cast<std::size_t>(segment.end - segment.begin);
      const auto moments =
          static_cast<std::size_t>(state.moments_begin[b] + segment.flat - plan.updated[b].begin);
      const auto add = [&](const char* kind, const Buffer& space, std::size_t offset) {
        all.push_back({kind + parameter.name, parameter.logical_shape(), segment.begin, segment.end,
                       space.as<float>().subspan(offset, size)});
      };
      add("master/", state.master, static_cast<std::size_t>(segment.flat));
      add("adam.m/", state.m, moments);
      add("adam.v/", state.v, moments);
    }
  }
  if (!state.machine.is_cpu()) {
    std::span<float> free = copy.as<float>();
    for (Slice& slice : all) {
      const std::span<float> to = free.first(slice.values.size());
      free = free.subspan(to.size());
      state.machine.stream().copy(to.data(), slice.values.data(), to.size_bytes());
      slice.values = to;
    }
  }
  state.machine.stream().synchronize();
  return all;
}

void load_parameters(const Checkpoint& checkpoint, const ParameterSpace& parameters, std::span<float> master,
                     Transfer& transfer) {
  for (const Segment& segment : segments(parameters, {0, parameters.elements()})) {
    const Parameter& parameter = parameters[segment.parameter];
    const std::string name = "master/" + parameter.name;
    checkpoint.require(name, parameter.logical_shape());
    transfer.upload(master.subspan(static_cast<std::size_t>(segment.flat),
                                   static_cast<std::size_t>(segment.end - segment.begin)),
                    [&](std::int64_t begin, std::span<float> piece) {
                      checkpoint.read(name, segment.begin + begin, segment.begin + begin + std::ssize(piece),
                                      piece);
                    });
  }
}

void load(const Checkpoint& checkpoint, const RunPlan& plan, ModelState& state) {
  Transfer transfer(state.machine);
  load_parameters(checkpoint, plan.parameters(), state.master.as<float>(), transfer);
  for (std::size_t b = 0; b < plan.buckets.size(); ++b)
    for (const Segment& segment : segments(plan.parameters(), plan.updated[b])) {
      const Parameter& parameter = plan.parameters()[segment.parameter];
      const auto offset =
          static_cast<std::size_t>(state.moments_begin[b] + segment.flat - plan.updated[b].begin);
      const auto size = static_cast<std::size_t>(segment.end - segment.begin);
      for (const auto& [kind, space] :
           {std::pair<const char*, const Buffer&>{"adam.m/", state.m}, {"adam.v/", state.v}}) {
        checkpoint.require(kind + parameter.name, parameter.logical_shape());
        transfer.upload(space.as<float>().subspan(offset, size),
                        [&, &prefix = kind](std::int64_t begin, std::span<float> piece) {
                          checkpoint.read(prefix + parameter.name, segment.begin + begin,
                                          segment.begin + begin + std::ssize(piece), piece);
                        });
      }
    }
}

void check_replicas(ModelState& state, Communicator& comm) {
  std::string mine;
  Transfer(state.machine).download(state.master.as<float>(), [&](std::int64_t, std::span<const float> piece) {
    mine += hex(hash_bytes(std::as_bytes(piece)));
  });
  const std::vector<std::string> all = gather_strings(comm, mine, "hashes of the parameters");
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (all[rank] != all[0])
      throw Defect(fmt::format("rank {} holds other parameters than rank 0 (hashes {} and {})", rank,
                               all[rank], all[0]));
}

}  // namespace muster
