#include "trainer/plan/schedule_text.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>

namespace muster {
namespace {

constexpr std::size_t line_length = 110;

// Several entries of one bucket, in words.
struct Deed {
  std::vector<std::string> words;  // "finish the sum", "squares"
  std::optional<std::size_t> bucket;
  std::size_t kernel = 0;  // before which it is done, in a micro-batch
  std::uint64_t bytes = 0;
};

struct Words {
  std::string what;
  std::optional<std::size_t> bucket;
  std::uint64_t bytes = 0;
};

std::optional<Words> words_of(const StepEntry& entry) {
  return std::visit(Overloaded{
                        [](const entry::ClearReports&) -> std::optional<Words> {
                          return Words{"clear the reports", {}};
                        },
                        [](const entry::Add& e) -> std::optional<Words> {
                          return Words{fmt::format("add gradient space {} to {}", e.right, e.left), e.bucket};
                        },
                        [](const entry::Receive& e) -> std::optional<Words> {
                          return Words{"receive parameters", e.bucket};
                        },
                        [](const entry::Send& e) -> std::optional<Words> {
                          return Words{"send gradients", e.bucket, e.bytes};
                        },
                        [](const entry::ShareReports& e) -> std::optional<Words> {
                          return Words{"share the reports", {}, e.bytes};
                        },
                        [](const entry::FinishSum& e) -> std::optional<Words> {
                          return Words{e.additions == 0 ? "wait for the sum"
                                                        : fmt::format("finish the sum ({} +)", e.additions),
                                       e.bucket};
                        },
                        [](const entry::Squares& e) -> std::optional<Words> {
                          return Words{"squares", e.bucket};
                        },
                        [](const entry::ShareSquares& e) -> std::optional<Words> {
                          return Words{"share the squares", {}, e.bytes};
                        },
                        [](const entry::Decide&) -> std::optional<Words> {
                          return Words{"decide: loss, norm, clip factor", {}};
                        },
                        [](const entry::ShareGradients& e) -> std::optional<Words> {
                          return Words{"share the sum", e.bucket, e.bytes};
                        },
                        [](const entry::Update& e) -> std::optional<Words> {
                          return Words{"update", e.bucket};
                        },
                        [](const entry::Gather& e) -> std::optional<Words> {
                          return Words{"gather parameters", e.bucket, e.bytes};
                        },
                        [](const auto&) -> std::optional<Words> { return std::nullopt; },
                    },
                    entry);
}

// "18-16, 3": consecutive numbers, up or down, in one.
std::string ranges(const std::vector<std::size_t>& numbers) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    const auto step = [&](std::size_t k) { return static_cast<std::int64_t>(numbers[k + 1] - numbers[k]); };
    while (last + 1 < numbers.size() && std::abs(step(last)) == 1 && step(last) == step(i)) ++last;
    parts.push_back(last == i ? fmt::format("{}", numbers[i])
                              : fmt::format("{}-{}", numbers[i], numbers[last]));
    i = last + 1;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

// "block.3" of "block.3.attention.qkv".
std::string region(const std::string& scope) {
  const std::size_t first = scope.find('.');
  return scope.starts_with("block.") ? scope.substr(0, scope.find('.', first + 1)) : scope.substr(0, first);
}

class Teller {
 public:
  explicit Teller(const RunPlan& plan) : plan_(plan) {}

  std::vector<std::string> tell() {
    for (const StepEntry& entry : plan_.schedule.entries) {
      if (const auto* take = std::get_if<entry::TakeBatch>(&entry)) {
        tell_deeds("");
        micro_batch_ = take;
        kernels_ = 0;
      } else if (const auto* kernels = std::get_if<entry::RunKernels>(&entry)) {
        kernels_ = kernels->end;
        last_ = *kernels;
      } else if (std::holds_alternative<entry::Report>(entry)) {
        tell_micro_batch();
      } else {
        add(*words_of(entry));
      }
    }
    tell_deeds("");
    lines_.push_back(fmt::format("sent: {} bytes", plan_.schedule.bytes_sent()));
    return std::move(lines_);
  }

 private:
  void add(const Words& words) {
    if (deeds_.empty() || !words.bucket || deeds_.back().bucket != words.bucket ||
        deeds_.back().kernel != kernels_)
      deeds_.push_back({{}, words.bucket, kernels_, 0});
    deeds_.back().words.push_back(words.what);
    deeds_.back().bytes += words.bytes;
  }

  void tell_micro_batch() {
    const std::string into =
        fmt::format("kernels 0-{}, {} gradient space {}", plan_.training.steps.size() - 1,
                    last_.accumulate ? "onto" : "into", last_.space);
    const std::string like = fmt::format("leaf {}: {}", last_.leaf, into);
    // One that does nothing else is told with the ones like it.
    if (deeds_.empty() && like == like_) {
      lines_.back() =
          fmt::format("leaf {}, micro-batches {}-{}: {}", last_.leaf, first_, last_.micro_batch, into);
    } else {
      first_ = last_.micro_batch;
      lines_.push_back(fmt::format("leaf {}, micro-batch {}: {}", last_.leaf, last_.micro_batch, into));
    }
    like_ = deeds_.empty() ? like : "";
    tell_deeds("  ");
    micro_batch_ = nullptr;
  }

  // What is done alike in one line, its buckets by the kernels before which it is done.
  void tell_deeds(const std::string& indent) {
    for (std::size_t i = 0; i < deeds_.size();) {
      std::size_t end = i;
      std::uint64_t bytes = 0;
      std::vector<std::string> places;
      while (end < deeds_.size() && deeds_[end].words == deeds_[i].words) {
        const std::size_t kernel = deeds_[end].kernel;
        std::vector<std::size_t> buckets;
        for (; end < deeds_.size() && deeds_[end].words == deeds_[i].words && deeds_[end].kernel == kernel;
             ++end) {
          if (deeds_[end].bucket) buckets.push_back(*deeds_[end].bucket);
          bytes += deeds_[end].bytes;
        }
        if (buckets.empty()) continue;
        places.push_back(micro_batch_ == nullptr ? ranges(buckets) : ranges(buckets) + place(kernel));
      }
      std::string line = fmt::format("{}{}{}", indent, fmt::join(deeds_[i].words, ", "),
                                     bytes > 0 ? fmt::format(" ({} bytes)", bytes) : "");
      if (!places.empty()) line += micro_batch_ == nullptr ? ", buckets" : ", buckets at kernels";
      for (std::size_t p = 0; p < places.size(); ++p) {
        const std::string more = (p == 0 ? ": " : "; ") + places[p];
        if (line.size() + more.size() > line_length) {
          lines_.push_back(line + (p == 0 ? ":" : ";"));
          line = indent + "  " + places[p];
        } else {
          line += more;
        }
      }
      lines_.push_back(line);
      if (indent.empty()) like_.clear();
      i = end;
    }
    deeds_.clear();
  }

  std::string place(std::size_t kernel) const {
    if (kernel == plan_.training.steps.size()) return " at the end";
    const Node& node = plan_.training.node(plan_.training.steps[kernel]);
    return fmt::format(" at {} {}", kernel,
                       node.scope.empty() ? std::string(node.op->name()) : region(node.scope));
  }

  const RunPlan& plan_;
  std::vector<std::string> lines_;
  std::vector<Deed> deeds_;
  const entry::TakeBatch* micro_batch_ = nullptr;  // at hand
  entry::RunKernels last_;
  std::size_t kernels_ = 0;
  int first_ = 0;     // micro-batch of the last line
  std::string like_;  // what that line tells, if one like it may join
};

}  // namespace

std::vector<std::string> describe_steps(const RunPlan& plan) { return Teller(plan).tell(); }

}  // namespace muster
