// Samples of a range of global slots, ready for a model, as fields of a batch (core/fields.hpp), i32 each:
//
//   tokens           [count x T]
//   targets          [count x T]  the token that follows; ignored_target: none counts here
//   positions        [count x T]  from 0 in each sample, and in each document if they are apart
//   document_starts  [max_documents(count) + 1]  where documents start in tokens; sample borders are among them, the
//                    first is 0, and unused entries repeat the end, count x T
//
// A sample is T + 1 tokens, the windows of a shard starting every T tokens; the tail of a shard that does not
// fill a window is dropped and counted. Training samples come mixed and permuted (data/sampler.hpp),
// validation samples are the windows in their order, once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/fields.hpp"
#include "core/memory.hpp"
#include "data/block_hashes.hpp"
#include "data/dataset.hpp"
#include "data/document_index.hpp"
#include "data/sampler.hpp"

namespace muster {

// What a document begins with where documents are kept apart: the end token of the one before it, so that its own first
// token is a target, or its first token. (One that has no end token before it begins with its first token in any case.)
enum class DocumentStart : std::uint8_t { end_token, first_token };

class Loader {
 public:
  struct Source {
    const Dataset* dataset;  // outlives the loader
    double weight = 1;
  };
  struct Options {
    std::int64_t sequence = 0;  // T
    std::uint64_t seed = 0;
    Split split = Split::train;
    // Keeps documents apart: positions restart with each, and no target crosses a border.
    bool documents = false;
    DocumentStart document_start = DocumentStart::end_token;
    // The model's, of which the last `own_tokens` are no dataset's; a dataset with more than the others is refused.
    std::uint32_t vocabulary = 0;
    // Of the validation split only the first so many samples count; 0: all.
    std::int64_t windows = 0;
    std::uint32_t own_tokens = 0;
  };

  // UserError if the sources have different tokenizers, too large a vocabulary, or no sample of T + 1 tokens.
  Loader(std::vector<Source> sources, const Options& options, MemoryAccount& account);

  // Bytes (MemoryKind::data) that a loader of these sources holds.
  static std::uint64_t memory(std::span<const DatasetInfo* const> sources, const Options& options);
  // The most documents in `count` samples; further ones are joined to the one before them. A sample has at
  // most min(T, max(64, T / 16)), that is, documents of 16 tokens and more on average never meet the bound.
  static std::int64_t max_documents(std::int64_t count, const Options& options);

  // What it can fill, for batches of `count` samples.
  static std::vector<Field> fields(std::int64_t count, const Options& options);

  const Options& options() const { return options_; }
  // Samples of one epoch of a source, or of the whole validation split.
  std::int64_t samples(std::size_t source) const {
    return static_cast<std::int64_t>(sources_[source].samples);
  }
  std::int64_t samples() const;
  // Of all shards.
  std::uint64_t tokens() const;
  // Tokens in the tails of shards that no sample holds.
  std::int64_t dropped_tokens() const;
  // What samples do to documents that are kept apart. Reads where every document ends.
  struct Cuts {
    std::uint64_t documents = 0;
    std::uint64_t cut = 0;     // reach from one sample into the next
    std::uint64_t longer = 0;  // of these: than a sample
    std::uint64_t joined = 0;  // to the one before them, since a sample has too many
  };
  Cuts cuts() const;

  // Samples of slots [first_slot, first_slot + count), into those of its fields that the batch has. Validation slots past
  // the end are filled with ignored targets. Not for two threads at once.
  void fill(std::int64_t first_slot, std::int64_t count, Batch& batch);

 private:
  struct State {
    const std::vector<Shard>* shards = nullptr;
    std::vector<std::uint64_t> first_sample;  // of each shard
    std::uint64_t samples = 0;
    BlockHashes hashes;
    std::optional<DocumentIndex> documents;
  };
  struct TokenFields;
  struct Window {
    std::size_t source = 0, shard = 0;
    std::uint64_t begin = 0;  // its first token in the shard
  };

  void count_cuts(const Shard& shard, Cuts& cuts) const;
  std::optional<Window> window_at(std::int64_t slot);
  // Writes one sample whose tokens start at `offset` of the batch; returns how many of its targets count.
  std::int64_t fill_sample(const Window& window, std::int64_t offset, TokenFields& to, Batch& batch);

  Options options_;
  std::vector<State> sources_;
  std::optional<Sampler> sampler_;         // of training
  Buffer window_;                          // T + 1 tokens
  std::optional<std::int32_t> end_token_;  // that documents begin with
  std::vector<std::uint64_t> ends_;
};

}  // namespace muster
