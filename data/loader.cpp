#include "data/loader.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "data/tokenizer.hpp"

namespace muster {
namespace {

// The most borders inside a sample, beside its start.
std::int64_t max_inner_borders(const Loader::Options& options) {
  if (!options.documents) return 0;
  return std::min(options.sequence, std::max<std::int64_t>(64, options.sequence / 16)) - 1;
}

std::uint64_t window_bytes(const Loader::Options& options) {
  return static_cast<std::uint64_t>(options.sequence + 1) * sizeof(std::int32_t);
}

void check_sources(std::span<const Loader::Source> sources, const Loader::Options& options) {
  check(!sources.empty(), "a loader needs a source");
  const Dataset& first = *sources.front().dataset;
  for (const Loader::Source& source : sources) {
    const Dataset& dataset = *source.dataset;
    if (const std::uint32_t wanted = dataset.info().vocabulary + options.own_tokens;
        wanted > options.vocabulary)
      throw UserError("{} has a vocabulary of {}, the model one of {}{}: raise model.vocabulary to {}",
                      dataset.folder(), dataset.info().vocabulary, options.vocabulary,
                      options.own_tokens == 0 ? "" : fmt::format(" with {} of its own", options.own_tokens),
                      wanted);
    if (dataset.info().tokenizer_hash != first.info().tokenizer_hash)
      throw UserError("{} and {} were made with different tokenizers: prepare them with the same one",
                      first.folder(), dataset.folder());
  }
}

UserError no_sample(const Loader::Source& source, const Loader::Options& options, std::uint64_t longest) {
  const std::uint64_t tokens = source.dataset->info().split(options.split).tokens();
  const bool in_parts = std::cmp_greater(tokens, options.sequence);  // enough of them, in shards too short
  return UserError(
      "the {} split of {} has no sample of {} + 1 tokens, its longest shard has {}: shorten "
      "train.sequence or {}",
      name_of(options.split), source.dataset->folder(), options.sequence, longest,
      in_parts ? "prepare the text again with a larger --shard-tokens" : "prepare more text");
}

}  // namespace

// The fields of a batch, and how many entries of document_starts are written.
struct Loader::TokenFields {
  std::span<std::int32_t> tokens, targets, positions, document_starts;
  std::size_t starts = 0;

  void start_document_at(std::int64_t offset) {
    if (!document_starts.empty()) document_starts[starts++] = static_cast<std::int32_t>(offset);
  }
};

std::vector<Field> Loader::fields(std::int64_t count, const Options& options) {
  const std::int64_t tokens = count * options.sequence;
  return {{"tokens", DType::i32, tokens},
          {"targets", DType::i32, tokens},
          {"positions", DType::i32, tokens},
          {"document_starts", DType::i32, max_documents(count, options) + 1}};
}

std::int64_t Loader::max_documents(std::int64_t count, const Options& options) {
  return count * (1 + max_inner_borders(options));
}

std::uint64_t Loader::memory(std::span<const DatasetInfo* const> sources, const Options& options) {
  std::uint64_t bytes = Buffer::counted(window_bytes(options));
  for (const DatasetInfo* info : sources) {
    const SplitInfo& split = info->split(options.split);
    bytes += Buffer::counted(BlockHashes::bytes(split, options.documents));
    if (options.documents) bytes += Buffer::counted(DocumentIndex::bytes(split));
  }
  return bytes;
}

Loader::Loader(std::vector<Source> sources, const Options& options, MemoryAccount& account)
    : options_(options), window_(account, MemoryKind::data, window_bytes(options)) {
  check(options.sequence >= 1, "a sample needs a token");
  check_sources(sources, options);
  if (options.documents && options.document_start == DocumentStart::end_token) {
    const Dataset& first = *sources.front().dataset;
    end_token_ = tokenizer_from_description(first.info().tokenizer, first.folder())->end_token();
  }
  const auto length = static_cast<std::uint64_t>(options.sequence);
  std::vector<Sampler::Source> mix;
  for (const Source& source : sources) {
    State state{.shards = &source.dataset->shards(options.split),
                .first_sample = {},
                .samples = 0,
                .hashes = {},
                .documents = {}};
    std::uint64_t longest = 0;
    for (const Shard& shard : *state.shards) {
      state.first_sample.push_back(state.samples);
      state.samples += shard.tokens() == 0 ? 0 : (shard.tokens() - 1) / length;
      longest = std::max(longest, shard.tokens());
    }
    if (state.samples == 0) throw no_sample(source, options, longest);
    state.hashes =
        BlockHashes(*state.shards, source.dataset->info().split(options.split), options.documents, account);
    if (options.documents) state.documents.emplace(*state.shards, state.hashes, account);
    mix.push_back({state.samples, source.weight});
    sources_.push_back(std::move(state));
  }
  if (options.split == Split::train) sampler_.emplace(mix, options.seed);
}

std::int64_t Loader::samples() const {
  std::int64_t sum = 0;
  for (std::size_t k = 0; k < sources_.size(); ++k) sum += samples(k);
  return sum;
}

std::int64_t Loader::dropped_tokens() const {
  std::uint64_t tokens = 0;
  for (const State& source : sources_)
    for (const Shard& shard : *source.shards)
      tokens +=
          shard.tokens() == 0 ? 0 : (shard.tokens() - 1) % static_cast<std::uint64_t>(options_.sequence);
  return static_cast<std::int64_t>(tokens);
}

std::uint64_t Loader::tokens() const {
  std::uint64_t tokens = 0;
  for (const State& source : sources_)
    for (const Shard& shard : *source.shards) tokens += shard.tokens();
  return tokens;
}

Loader::Cuts Loader::cuts() const {
  Cuts cuts;
  for (const State& source : sources_)
    for (const Shard& shard : *source.shards) count_cuts(shard, cuts);
  return cuts;
}

void Loader::count_cuts(const Shard& shard, Cuts& cuts) const {
  constexpr std::uint64_t at_once = 1 << 16;
  const auto length = static_cast<std::uint64_t>(options_.sequence);
  const auto most = static_cast<std::uint64_t>(max_inner_borders(options_));
  const std::uint64_t samples = shard.tokens() == 0 ? 0 : (shard.tokens() - 1) / length;
  std::vector<std::int64_t> ends;
  std::uint64_t begin = 0, sample = 0, borders = 0;
  for (std::uint64_t read = 0; read < shard.documents(); read += ends.size()) {
    ends.resize(std::min(at_once, shard.documents() - read));
    shard.read_document_ends(read, ends);
    for (const std::int64_t value : ends) {
      const auto end = static_cast<std::uint64_t>(value);
      ++cuts.documents;
      // Its last token may be a target only.
      if (end > begin + 1 && begin / length != (end - 2) / length) ++cuts.cut;
      if (end > begin + length + 1) ++cuts.longer;
      const std::uint64_t border = end_token_ ? end - 1 : end;
      if (border / length != sample) {
        sample = border / length;
        borders = 0;
      }
      if (border % length != 0 && sample < samples && ++borders > most) ++cuts.joined;
      begin = end;
    }
  }
}

std::optional<Loader::Window> Loader::window_at(std::int64_t slot) {
  auto index = static_cast<std::uint64_t>(slot);
  std::size_t source = 0;
  if (sampler_) {
    const Sampler::Sample sample = sampler_->at(index);
    source = sample.source;
    index = sample.index;
  } else {
    if (options_.windows > 0 && slot >= options_.windows) return std::nullopt;
    while (source < sources_.size() && index >= sources_[source].samples) index -= sources_[source++].samples;
    if (source == sources_.size()) return std::nullopt;
  }
  // The last shard that starts at or before the sample; shards without samples share their start with the
  // next.
  const std::vector<std::uint64_t>& first = sources_[source].first_sample;
  const auto shard =
      static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), index) - first.begin()) - 1;
  return Window{source, shard, (index - first[shard]) * static_cast<std::uint64_t>(options_.sequence)};
}

void Loader::fill(std::int64_t first_slot, std::int64_t count, Batch& batch) {
  const auto field = [&](const Field& wanted) {
    const auto found = batch.has(wanted.name) ? batch.i32(wanted.name) : std::span<std::int32_t>();
    check(found.empty() || std::ssize(found) == wanted.elements, "a batch of another shape");
    return found;
  };
  check(first_slot >= 0 && count >= 1, "a batch has samples");
  const std::vector<Field> all = fields(count, options_);
  TokenFields to{field(all[0]), field(all[1]), field(all[2]), field(all[3]), 0};
  check(!to.tokens.empty() && !to.targets.empty() && !to.positions.empty(),
        "a batch of tokens has targets and positions");
  batch.samples = batch.valid_targets = batch.merged_documents = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t offset = i * options_.sequence;
    if (const std::optional<Window> window = window_at(first_slot + i)) {
      ++batch.samples;
      batch.valid_targets += fill_sample(*window, offset, to, batch);
    } else {
      const auto begin = static_cast<std::size_t>(offset),
                 length = static_cast<std::size_t>(options_.sequence);
      std::ranges::fill(to.tokens.subspan(begin, length), 0);
      std::ranges::fill(to.targets.subspan(begin, length), ignored_target);
      const auto positions = to.positions.subspan(begin, length);
      std::iota(positions.begin(), positions.end(), 0);
      to.start_document_at(offset);
    }
  }
  if (!to.document_starts.empty())
    std::ranges::fill(to.document_starts.subspan(to.starts), static_cast<std::int32_t>(to.tokens.size()));
}

std::int64_t Loader::fill_sample(const Window& window, std::int64_t offset, TokenFields& to, Batch& batch) {
  const State& source = sources_[window.source];
  const auto begin = static_cast<std::size_t>(offset), length = static_cast<std::size_t>(options_.sequence);
  const std::span<std::int32_t> read = window_.as<std::int32_t>().first(length + 1);
  (*source.shards)[window.shard].read_tokens(window.begin, read, source.hashes.of_tokens(window.shard));
  std::ranges::copy(read.first(length), to.tokens.subspan(begin, length).begin());
  const std::span<std::int32_t> targets = to.targets.subspan(begin, length);
  std::ranges::copy(read.subspan(1), targets.begin());

  ends_.clear();
  std::int64_t ignored = 0;
  if (source.documents) {
    source.documents->ends_between(window.shard, window.begin, window.begin + length + 1, source.hashes,
                                   ends_);
    for (std::uint64_t& end : ends_) {
      end -= window.begin;
      if (read[end - 1] == end_token_) --end;  // it begins the next document
    }
    ends_.erase(std::unique(ends_.begin(), ends_.end()), ends_.end());
    if (!ends_.empty() && ends_.front() == 0) ends_.erase(ends_.begin());
    // A document that ends with the last input token makes the last target a border too.
    if (!ends_.empty() && ends_.back() == length) {
      targets[length - 1] = ignored_target;
      ++ignored;
      ends_.pop_back();
    }
    if (const auto most = static_cast<std::size_t>(max_inner_borders(options_)); ends_.size() > most) {
      batch.merged_documents += static_cast<std::int64_t>(ends_.size() - most);
      ends_.resize(most);
    }
  }
  const std::span<std::int32_t> positions = to.positions.subspan(begin, length);
  std::size_t document = 0;
  const auto start_next_at = [&](std::size_t end) {
    to.start_document_at(offset + static_cast<std::int64_t>(document));
    std::iota(positions.begin() + static_cast<std::ptrdiff_t>(document),
              positions.begin() + static_cast<std::ptrdiff_t>(end), 0);
    document = end;
  };
  for (const std::uint64_t end : ends_) {
    start_next_at(end);
    if (read[end] == end_token_) continue;
    targets[end - 1] = ignored_target;
    ++ignored;
  }
  start_next_at(length);
  return options_.sequence - ignored;
}

}  // namespace muster
