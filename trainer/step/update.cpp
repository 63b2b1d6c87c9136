#include "trainer/step/update.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace muster {
namespace {

// The pieces of a bucket in one array, by rank.
std::vector<std::span<std::byte>> pieces_of(const Bucket& bucket, const Buffer& space) {
  std::vector<std::span<std::byte>> pieces;
  for (const Range& piece : bucket.pieces)
    pieces.push_back(std::as_writable_bytes(space.as<float>().subspan(
        static_cast<std::size_t>(piece.begin), static_cast<std::size_t>(piece.size()))));
  return pieces;
}

}  // namespace

Update::Update(const Config& config, const RunPlan& plan, ModelState& state, Communicator& comm,
               WaitClock& waits)
    : config_(config), plan_(plan), state_(state), comm_(comm), waits_(waits) {
  for (const Range& range : plan.updated)
    segments_.push_back(segments(plan.training.graph, plan.training.space, range));
}

void Update::apply(const AdamW& rule, std::span<const std::span<float>> sums, Stream& stream) {
  std::vector<Event> gathered;
  for (std::size_t b = 0; b < plan_.buckets.size(); ++b) {
    const std::span<const float> gradients = gradient(b, sums[b], stream);
    for (const Segment& segment : segments_[b]) {
      const auto size = static_cast<std::size_t>(segment.end - segment.begin);
      const std::int64_t inside = segment.flat - plan_.updated[b].begin;
      const auto moments = static_cast<std::size_t>(state_.moments_begin[b] + inside);
      AdamW own = rule;
      const bool decays = plan_.training.graph.parameters[segment.parameter].decay;
      own.decay = decays ? static_cast<float>(config_.optimizer.weight_decay) : 0.0f;
      stream.enqueue(
          [own, w = state_.master.as<float>().subspan(static_cast<std::size_t>(segment.flat), size),
           m = state_.m.as<float>().subspan(moments, size), v = state_.v.as<float>().subspan(moments, size),
           g = gradients.subspan(static_cast<std::size_t>(inside), size)] {
            cpu_flat_kernels().adamw(own, w, m, v, g);
          });
    }
    if (config_.train.sharding == 1 && plan_.ranks > 1)
      gathered.push_back(comm_.all_gather(pieces_of(plan_.buckets[b], state_.master),
                                          fmt::format("all_gather of parameters, bucket {}", b),
                                          stream.record()));
  }
  for (std::size_t b = 0; b < plan_.buckets.size(); ++b) {
    if (!gathered.empty()) waits_.during([&] { stream.wait(gathered[b]); });
    stream.enqueue([this, range = plan_.buckets[b].range] { state_.refresh_compute(range); });
  }
}

// What the update of a bucket reads, from the first element that this rank updates on.
std::span<const float> Update::gradient(std::size_t bucket, std::span<float> sum, Stream& stream) {
  if (config_.train.sharding == 1) return sum;
  const Range range = plan_.buckets[bucket].range,
              piece = plan_.buckets[bucket].pieces[static_cast<std::size_t>(plan_.rank)];
  const std::span<float> space = state_.gradients[0].as<float>();
  const std::span<float> own = space.subspan(static_cast<std::size_t>(piece.begin), sum.size());
  stream.enqueue([sum, own] {
    if (sum.data() != own.data()) std::copy(sum.begin(), sum.end(), own.begin());
  });
  if (plan_.ranks > 1) {
    const Event gathered =
        comm_.all_gather(pieces_of(plan_.buckets[bucket], state_.gradients[0]),
                         fmt::format("all_gather of gradients, bucket {}", bucket), stream.record());
    waits_.during([&] { stream.wait(gathered); });
  }
  return space.subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
}

}  // namespace muster
