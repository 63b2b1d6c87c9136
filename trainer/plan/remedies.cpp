#include "trainer/plan/remedies.hpp"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "core/text.hpp"
#include "trainer/config/keys.hpp"

namespace muster {
namespace {

// Something to do, and the start that it makes.
struct Change {
  std::string told;
  std::function<void(Start&)> make;
};

class Search {
 public:
  Search(const Start& start, const DemandOf& demand) : start_(start), demand_(demand) {}

  Start with(const std::vector<Change>& changes) const {
    Start changed = start_;
    for (const Change& change : changes) change.make(changed);
    return changed;
  }
  // What a rank needs, if such a start can be planned at all.
  std::optional<Demand> demand(const Start& start) const {
    try {
      check_relations(start.config);
      return demand_(start);
    } catch (const UserError&) {
      return std::nullopt;
    }
  }
  bool suffices(const std::vector<Change>& changes) const {
    const std::optional<Demand> needed = demand(with(changes));
    return needed && needed->fits();
  }

 private:
  const Start& start_;
  const DemandOf& demand_;
};

// A key's new value, and whether a run that has begun may take it.
Change setting(const Start& start, std::string_view name, const KeyValue& value) {
  const Key& key = find_key(name, "a remedy");
  const bool quoted = key.kind == KeyKind::choice;
  return {fmt::format("set {} = {}{}", name, toml_value(value),
                      may_change_on_resume(key, start.config) ? "" : " in a new run"),
          [&key, value, quoted](Start& changed) { key.set(changed.config, value); }};
}

std::vector<Change> recomputing(const Start& start) {
  std::vector<Change> changes;
  for (const Recompute policy : {Recompute::norms, Recompute::block})
    if (policy > start.config.train.recompute)
      changes.push_back(setting(start, "train.recompute", std::string(spelling(policy))));
  return changes;
}

// From the largest that is smaller than that of today.
std::vector<Change> smaller_micro_batches(const Start& start) {
  const TrainConfig train = for_ranks(start.config, start.ranks).train;
  std::vector<Change> changes;
  for (std::int64_t size = train.micro_batch / 2; size >= 1; size /= 2)
    changes.push_back(setting(start, "train.micro_batch", size));
  return changes;
}

std::vector<Change> dividing(const Start& start) {
  if (start.config.train.sharding == 1 || start.ranks == 1) return {};
  return {setting(start, "train.sharding", std::int64_t{1})};
}

// More hosts like these, or fewer ranks on each, where they share its memory.
std::vector<Change> other_ranks(const Start& start, bool share_memory) {
  std::vector<Change> changes;
  const TrainConfig& train = start.config.train;
  const std::int64_t most = train.reduction == Reduction::fast ? train.batch : train.shards;
  const int hosts = std::max(1, start.ranks / start.local_ranks);
  if (share_memory)
    for (int local = start.local_ranks - 1; local >= 1; --local)
      changes.push_back(
          {hosts > 1 ? fmt::format("start {} ranks, {} on a host", hosts * local, local)
                     : fmt::format("start {} rank{}", local, local == 1 ? "" : "s"),
           [hosts, local](Start& changed) { changed.ranks = hosts * (changed.local_ranks = local); }});
  for (std::int64_t ranks = 2 * start.ranks; ranks <= most; ranks *= 2)
    changes.push_back({share_memory ? fmt::format("start {} ranks, {} on a host", ranks, start.local_ranks)
                                    : fmt::format("start {} ranks, a GPU each", ranks),
                       [ranks](Start& changed) { changed.ranks = static_cast<int>(ranks); }});
  return changes;
}

std::vector<Change> fewer_gradients(const Start& start) {
  if (start.config.train.reduction == Reduction::fast) return {};
  return {setting(start, "train.reduction", std::string(spelling(Reduction::fast)))};
}

std::vector<Change> fewer_bits(const Start& start) {
  if (start.config.run.precision == Precision::bf16) return {};
  return {setting(start, "run.precision", std::string("bf16"))};
}

}  // namespace

std::string remedies(const Start& start, const DemandOf& demand, bool share_memory) {
  const Search search(start, demand);
  const std::vector<std::vector<Change>> ways = {recomputing(start),     smaller_micro_batches(start),
                                                 dividing(start),        other_ranks(start, share_memory),
                                                 fewer_gradients(start), fewer_bits(start)};
  // Of each way the mildest that suffices alone.
  std::vector<std::string> alone;
  for (const std::vector<Change>& changes : ways)
    for (const Change& change : changes)
      if (search.suffices({change})) {
        alone.push_back(change.told);
        break;
      }
  if (!alone.empty()) return fmt::format("{}", fmt::join(alone, ", or "));

  // All together, each way as far as it goes; then without those that are not needed.
  std::vector<Change> together;
  Demand least = demand(start);
  const auto share = [](const Demand& of) {
    return static_cast<double>(of.needed()) / static_cast<double>(std::max<std::uint64_t>(1, of.available));
  };
  const auto keep_if_less = [&](const Change& change) {
    std::vector<Change> more = together;
    more.push_back(change);
    const std::optional<Demand> needed = search.demand(search.with(more));
    if (!needed || share(*needed) >= share(least)) return;
    least = *needed;
    together = std::move(more);
  };
  for (const std::vector<Change>& changes : ways)
    if (!changes.empty()) keep_if_less(changes.back());
  if (least.fits()) {
    for (std::size_t i = together.size(); i-- > 0;) {
      std::vector<Change> fewer = together;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      if (search.suffices(fewer)) together = std::move(fewer);
    }
  }
  std::vector<std::string> told;
  for (const Change& change : together) told.push_back(change.told);
  if (least.fits()) return fmt::format("{}", fmt::join(told, ", and "));
  return fmt::format("no setting suffices; take more memory, or a smaller model: a rank needs {}{}{}",
                     human_bytes(least.needed()), told.empty() ? "" : " even if you ",
                     fmt::join(told, ", and "));
}

}  // namespace muster
