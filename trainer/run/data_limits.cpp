#include "trainer/run/data_limits.hpp"

#include <fmt/format.h>

#include "core/text.hpp"

namespace muster {
namespace {

std::string share(std::uint64_t part, std::uint64_t whole) {
  return fmt::format("{} of {} ({:.3g}%)", part, whole,
                     whole == 0 ? 0 : 100 * static_cast<double>(part) / static_cast<double>(whole));
}

std::vector<std::string> limits_of(const Loader& loader, const Config& config, std::string_view what) {
  std::vector<std::string> lines;
  const auto tail = static_cast<std::uint64_t>(loader.dropped_tokens());
  if (tail > 0)
    lines.push_back(fmt::format("{}: {} tokens, at the ends of shards, fill no sample and are left out", what,
                                share(tail, loader.tokens())));
  if (!config.data.documents) return lines;
  const Loader::Cuts cuts = loader.cuts();
  if (cuts.cut > 0)
    lines.push_back(fmt::format("{}: {} documents are cut where a sample ends; {} are longer than a sample",
                                what, share(cuts.cut, cuts.documents), cuts.longer));
  if (cuts.joined > 0)
    lines.push_back(fmt::format(
        "{}: {} documents are joined to the one before them: a sample of {} tokens keeps at most {} apart",
        what, share(cuts.joined, cuts.documents), config.train.sequence,
        Loader::max_documents(1, loader.options())));
  return lines;
}

}  // namespace

std::vector<std::string> limits_of_training(const Loader& loader, const Config& config) {
  return limits_of(loader, config, "data");
}

std::vector<std::string> limits_of_evaluation(const Loader& loader, const Config& config) {
  std::vector<std::string> lines = limits_of(loader, config, "held out");
  const auto windows = static_cast<std::uint64_t>(loader.samples()),
             wanted = static_cast<std::uint64_t>(config.eval.windows);
  if (wanted > 0 && wanted < windows)
    lines.push_back(fmt::format("held out: the first {} samples are evaluated, as eval.windows says",
                                share(wanted, windows)));
  if (const std::vector<DataSource> sources = config.data.sources(); sources.size() > 1)
    lines.push_back(fmt::format("held out: of {} sources the text of the first, {}, is evaluated",
                                sources.size(), quotable(sources.front().path)));
  return lines;
}

}  // namespace muster
