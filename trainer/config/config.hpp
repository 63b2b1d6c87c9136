// What a run is told, as plain values: one struct a section of the configuration file, fields named like the
// keys.
//
// The initialisers here are the defaults. The table in keys.cpp gives each key its meaning, its rule and its
// property on resume; read.hpp fills a Config from TOML and the command line.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.hpp"
#include "data/loader.hpp"
#include "model/families/config.hpp"
#include "model/graph/precision.hpp"

namespace muster {

enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda };
enum class Reduction : std::uint8_t { fast, invariant };
enum class OptimizerKind : std::uint8_t { adamw, sgd };
enum class ScheduleKind : std::uint8_t { constant, cosine, linear };

// How the values of each enum are spelt in a configuration, in the order of the enum.
constexpr auto spellings(DeviceChoice) { return std::array<std::string_view, 3>{"auto", "cpu", "cuda"}; }
constexpr auto spellings(Verify) { return std::array<std::string_view, 3>{"auto", "size", "full"}; }
constexpr auto spellings(DocumentStart) {
  return std::array<std::string_view, 2>{"end_token", "first_token"};
}
constexpr auto spellings(Reduction) { return std::array<std::string_view, 2>{"fast", "invariant"}; }
constexpr auto spellings(OptimizerKind) { return std::array<std::string_view, 2>{"adamw", "sgd"}; }
constexpr auto spellings(ScheduleKind) {
  return std::array<std::string_view, 3>{"constant", "cosine", "linear"};
}

template <class Enum>
constexpr std::string_view spelling(Enum value) {
  return spellings(value)[static_cast<std::size_t>(value)];
}

struct RunConfig {
  std::string dir;  // empty: runs/NAME of configuration NAME.toml
  std::int64_t seed = 1;
  DeviceChoice device = DeviceChoice::automatic;
  Precision precision = Precision::f32;
  bool fresh = false;
  bool takeover = false;
  double time_limit = 0;     // seconds; 0: none
  std::int64_t threads = 0;  // of a rank; 0: cores of the host / its ranks
  double watchdog = 300;     // seconds; 0: off
  bool operator==(const RunConfig&) const = default;
};

struct DataSource {
  std::string path;
  double weight = 1;
  bool operator==(const DataSource&) const = default;
};

struct DataConfig {
  std::string path;                // one source, or
  std::vector<DataSource> source;  // [[data.source]]: several with their weights
  Verify verify = Verify::automatic;
  bool documents = false;
  DocumentStart document_start = DocumentStart::end_token;
  // Either of the two as a list.
  std::vector<DataSource> sources() const;
  bool operator==(const DataConfig&) const = default;
};

// Whether what a model reads of a document begins with the end token before it.
inline bool begins_with_end_token(const DataConfig& data) {
  return !data.documents || data.document_start == DocumentStart::end_token;
}

struct TrainConfig {
  std::int64_t steps = 1000;
  std::int64_t batch = 64;
  std::int64_t sequence = 1024;
  std::int64_t shards = 8;
  std::int64_t micro_batch = 0;  // 0: batch / shards, or in fast mode what for_ranks() finds
  Reduction reduction = Reduction::fast;
  std::int64_t sharding = 1;
  Recompute recompute = Recompute::none;
  bool operator==(const TrainConfig&) const = default;
};

struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::adamw;
  double lr = 3e-4;
  std::array<double, 2> betas = {0.9, 0.95};
  double epsilon = 1e-8;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0.1;
  double clip = 1;  // 0: off
  bool operator==(const OptimizerConfig&) const = default;
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  std::int64_t warmup = 100;
  double final = 0.1;
  bool operator==(const ScheduleConfig&) const = default;
};

struct CheckpointConfig {
  std::int64_t every = 1000;  // 0: at the end only
  std::int64_t keep = 3;      // 0: all
  bool operator==(const CheckpointConfig&) const = default;
};

struct EvalConfig {
  std::int64_t every = 0;    // 0: never
  std::int64_t windows = 0;  // 0: all
  bool operator==(const EvalConfig&) const = default;
};

struct Config {
  RunConfig run;
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  bool operator==(const Config&) const = default;
};

// Fills in what 0 stands for: in [model] as its family says, the context, and micro_batch in invariant mode.
// model.vocabulary stays 0 until the dataset's tokenizer is known.
void resolve(Config& config);

// With what 0 stands for where it follows the number of ranks: in fast mode the micro-batch is batch / shards, or the
// largest below it that gives no rank much more than its share of the sequences.
Config for_ranks(Config config, int ranks);

// Throws UserError that names the key and the remedy where keys of a resolved configuration contradict each
// other: heads and width, shards and batch, sequence and context.
void check_relations(const Config& config);

}  // namespace muster
