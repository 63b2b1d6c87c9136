// The loss on the validation split: every window once (or the first eval.windows), a micro-batch a leaf of
// the tree, leaves divided over the ranks, so that the result is the same to the last bit on any number of
// ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "comm/communicator.hpp"
#include "comm/reduction.hpp"
#include "core/memory.hpp"
#include "data/loader.hpp"
#include "data/prefetch.hpp"
#include "model/executor.hpp"
#include "trainer/config/config.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

struct EvaluationResult {
  double loss = 0;  // mean over the valid targets, nats
  std::int64_t targets = 0;
  bool stopped = false;  // before its end, so there is no result
  double perplexity() const;
  // loss / ln 2 x tokens / bytes, of the split's raw text; nothing when its length is unknown, as that of tokens made
  // elsewhere.
  // And of a model that does not write text, token by token.
  std::optional<double> bits_per_byte(const DatasetInfo& info, const ModelConfig& model) const;
};

class Evaluation {
 public:
  // `loader` reads the validation split, of which eval.windows are used; `comm` joins the hosts.
  Evaluation(const Config& config, const Plan& plan, Loader& loader, Communicator& comm, Machine& machine);

  // Of MemoryKind::data that it takes beside the loader and its prefetch ring.
  static constexpr std::uint64_t memory() { return Buffer::counted(losses_at_a_time * sizeof(double)); }

  // Ends at the next micro-batch once `stop` holds on any rank, on all of them.
  EvaluationResult run(const Bindings& bindings, const std::function<bool()>& stop = {});

 private:
  const Config& config_;
  Executor executor_;
  Communicator& comm_;
  Stream& stream_;
  struct Leaf {
    double loss = 0;
    std::int64_t targets = 0;
  };
  // Of the micro-batches `mine`, as long as `go_on` holds after each.
  void compute(const Bindings& bindings, LeafRange mine, std::span<Leaf> results,
               const std::function<bool()>& go_on);

  // The losses of that many micro-batches come before the device is waited for.
  static constexpr std::size_t losses_at_a_time = Buffer::alignment / sizeof(double);

  Buffer losses_;
  Prefetch prefetch_;
  std::int64_t windows_;
};

}  // namespace muster
