// A family of models owns all of its own: what its keys mean, its parameters, its graphs by purpose. The registry
// (registry.cpp) lists the families; nothing outside of this folder names one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/fields.hpp"
#include "model/families/config.hpp"
#include "model/graph/builder.hpp"
#include "model/graph/graph.hpp"
#include "model/graph/precision.hpp"

namespace muster {

// One micro-batch: B samples of T tokens each.
struct MicroBatchShape {
  std::int64_t samples = 1;
  std::int64_t length = 1;
  std::int64_t document_starts = 0;  // entries of the input document_starts; 0: documents are not kept apart
  std::int64_t tokens() const { return samples * length; }
};

// Samples of a batch, numbered over a whole run.
struct SampleSlots {
  std::int64_t first = 0, count = 1;
  std::uint64_t seed = 1;
};

// One model of a family: its parameters, and the graphs that compute with them. What a graph reads are the inputs that
// it declares, fields of a batch.
class Model {
 public:
  virtual ~Model() = default;
  const ParameterSpace& parameters() const { return *space_; }

  // Result: loss, the sum over valid targets, f64 [1].
  Graph training(const MicroBatchShape& shape, Precision precision, Recompute recompute) const;
  Graph evaluation(const MicroBatchShape& shape, Precision precision) const;

  // What the graphs of training and evaluation read.
  std::vector<Field> fields(const MicroBatchShape& shape) const;
  // Whether derive() fills a field of this name, which data does not know.
  virtual bool derives(std::string_view) const { return false; }
  // Changes and fills fields of a batch that data has filled, and counts its valid targets anew. A sample's numbers depend
  // on its slot and the seed only. Called by the thread that reads ahead.
  virtual void derive(Batch&, const SampleSlots&) const {}

  // Inputs: tokens, positions i32 [B T], last i32 [B], the row of each sequence whose logits are wanted.
  // States: caches of `cache_length` positions. Result: logits f32 or bf16 [B, V padded].
  Graph generation(const MicroBatchShape& shape, Precision precision, std::int64_t cache_length) const;

 protected:
  // Appends everything between the inputs and the loss, and returns that.
  virtual ValueId append_loss(Builder& b, const MicroBatchShape& shape) const = 0;
  // The same for the logits of the next tokens.
  virtual ValueId append_logits(Builder& b, const MicroBatchShape& shape, std::int64_t cache_length) const;

 private:
  friend std::unique_ptr<Model> make_model(const ModelConfig& config);
  std::shared_ptr<const ParameterSpace> space_;
};

struct FamilyEntry {
  Family family;
  std::span<const std::string_view> keys;  // of the section [model] that it has
  // Fills in what 0 stands for, but for the vocabulary and the context.
  void (*resolve)(ModelConfig& config);
  // Throws UserError that names the key and the remedy where keys of a resolved configuration contradict each other.
  void (*check)(const ModelConfig& config);
  std::unique_ptr<Model> (*make)(const ModelConfig& config);  // without parameters yet
  bool writes_text = false;     // token by token: Model::generation, and the loss tells bits per byte
  std::int64_t own_tokens = 0;  // of its vocabulary, behind those of the dataset: a mask

  bool has_key(std::string_view field) const { return std::ranges::find(keys, field) != keys.end(); }
};
const FamilyEntry& family_of(const ModelConfig& config);
// Throws UserError unless they do.
void check_heads_divide_width(const ModelConfig& model);

std::unique_ptr<Model> make_model(const ModelConfig& config);

}  // namespace muster
