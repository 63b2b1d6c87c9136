// What PyTorch computed for a small model: reads tests/reference/values, written by make_values.py, whose
// head says what a file holds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/hash.hpp"
#include "core/hdf5.hpp"
#include "core/philox.hpp"
#include "core/tensor.hpp"
#include "model/families/config.hpp"

namespace muster::pytorch {

// The cases; each is values/NAME.h5.
inline const std::vector<std::string> cases = {"gpt-tied-head80", "gpt-untied-grouped",
                                               "llama-tied-head80-grouped", "llama-untied-bias", "bert"};

struct Parameter {
  std::string name;
  Shape shape;
  float scale = 0, offset = 0;
};

// The inputs of consecutive sequences as one micro-batch.
struct MicroBatch {
  std::vector<std::int32_t> tokens, targets, positions, document_starts;
};

class Case {
 public:
  explicit Case(const std::string& name)
      : file_(H5File::open_to_read("tests/reference/values/" + name + ".h5")),
        json_(nlohmann::json::parse(file_.string_attribute("/", "configuration"))) {
    const auto& m = json_.at("model");
    const auto& families = spellings(Family{});
    model.family = static_cast<Family>(std::ranges::find(families, m.at("family").get<std::string>()) -
                                       families.begin());
    for (const auto& [key, field] : {std::pair{"layers", &model.layers},
                                     {"width", &model.width},
                                     {"heads", &model.heads},
                                     {"kv_heads", &model.kv_heads},
                                     {"feed_forward", &model.feed_forward},
                                     {"vocabulary", &model.vocabulary},
                                     {"context", &model.context}})
      *field = m.at(key);
    model.tied = m.at("tied");
    model.qkv_bias = m.at("qkv_bias");
    model.rope_base = m.at("rope_base");
    model.norm_epsilon = m.at("norm_epsilon");

    const auto& train = json_.at("train");
    steps = train.at("steps");
    batch = train.at("batch");
    sequence = train.at("sequence");
    documents = train.at("documents");
    for (const auto& p : json_.at("parameters"))
      parameters.push_back({p.at("name"), p.at("shape"), p.at("scale"), p.at("offset")});

    tokens_ = read<std::int32_t>("tokens");
    targets_ = read<std::int32_t>("targets");
    if (documents) starts_ = read<std::int32_t>("document_starts");
  }

  ModelConfig model;
  std::int64_t steps = 0, batch = 0, sequence = 0;
  bool documents = false;
  std::vector<Parameter> parameters;

  double optimizer(const std::string& key) const { return json_.at("optimizer").at(key); }
  double beta(std::size_t i) const { return json_.at("optimizer").at("betas").at(i); }

  template <class T>
  std::vector<T> read(const std::string& dataset) const {
    const H5Dataset found = file_.dataset(dataset);
    std::vector<T> values(found.length());
    found.read<T>(0, values);
    return values;
  }

  std::vector<float> initial(const Parameter& parameter) const {
    const std::uint64_t seed = json_.at("seed");
    const bool table = parameter.name == "embedding.token.weight" || parameter.name == "head.weight";
    const std::int64_t in_use = table ? model.vocabulary * model.width : elements_of(parameter.shape);
    std::vector<float> values(static_cast<std::size_t>(elements_of(parameter.shape)));
    for (std::size_t i = 0; i < static_cast<std::size_t>(in_use); ++i) {
      const auto words = philox({static_cast<std::uint32_t>(i / 4), 0, 0, fnv1a(parameter.name)}, seed);
      values[i] = parameter.offset + parameter.scale * (uniform(words[i % 4]) - 0.5f);
    }
    return values;
  }

  // Entries of document_starts for one sequence.
  std::int64_t starts_per_sequence() const {
    return static_cast<std::int64_t>(starts_.size()) / (steps * batch);
  }

  MicroBatch micro_batch(std::int64_t step, std::int64_t first_sequence, std::int64_t sequences) const {
    MicroBatch result;
    const auto first = (step * batch + first_sequence) * sequence, count = sequences * sequence;
    result.tokens.assign(tokens_.begin() + first, tokens_.begin() + first + count);
    result.targets.assign(targets_.begin() + first, targets_.begin() + first + count);
    const std::int64_t entries = starts_per_sequence();
    for (std::int64_t s = 0; s < sequences; ++s) {
      std::int32_t start = 0;
      auto next = starts_.begin() + (step * batch + first_sequence + s) * entries;
      for (std::int32_t t = 0; t < sequence; ++t) {
        if (documents && *next == t) {
          result.document_starts.push_back(static_cast<std::int32_t>(s * sequence) + t);
          start = t;
          ++next;
        }
        result.positions.push_back(t - start);
      }
    }
    result.document_starts.resize(static_cast<std::size_t>(sequences * entries),
                                  static_cast<std::int32_t>(count));
    return result;
  }

  // Targets that count, in the global batch of a step.
  std::int64_t valid_targets(std::int64_t step) const {
    const auto begin = targets_.begin() + step * batch * sequence;
    return std::count_if(begin, begin + batch * sequence, [](std::int32_t target) { return target >= 0; });
  }

 private:
  H5File file_;
  nlohmann::json json_;
  std::vector<std::int32_t> tokens_, targets_, starts_;
};

inline double distance(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

inline double norm(std::span<const float> a) { return distance(a, std::vector<float>(a.size())); }

// The name of a case as gtest allows it.
inline std::string test_name(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace muster::pytorch
