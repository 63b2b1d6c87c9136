#include "trainer/step/update.hpp"

#include <exception>
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
    : config_(config),
      plan_(plan),
      state_(state),
      comm_(comm),
      waits_(waits),
      gathered_(plan.buckets.size()) {
  for (const Range& range : plan.updated) segments_.push_back(segments(plan.parameters(), range));
}

Update::~Update() {
  for (const std::optional<Event>& gathered : gathered_) {
    if (!gathered) continue;
    try {
      gathered->wait();
    } catch (const std::exception&) {
      // Nobody reads these values any more; whoever needs the lost peer has an error to tell.
    }
  }
}

void Update::apply(const AdamW& rule, const StepOutcome* outcome, std::span<const std::span<float>> sums) {
  receive_all();  // only a step that has failed leaves some of the last update's values
  Stream& stream = state_.machine.stream();
  // From the beginning of the space: the next forward asks for the first layers first.
  for (std::size_t b = plan_.buckets.size(); b-- > 0;) {
    const std::span<const float> gradients = gradient(b, sums[b]);
    for (const Segment& segment : segments_[b]) {
      const auto size = static_cast<std::size_t>(segment.end - segment.begin);
      const std::int64_t inside = segment.flat - plan_.updated[b].begin;
      const auto moments = static_cast<std::size_t>(state_.moments_begin[b] + inside);
      AdamW own = rule;
      const bool decays = plan_.parameters()[segment.parameter].decay;
      own.decay = decays ? static_cast<float>(config_.optimizer.weight_decay) : 0.0f;
      stream.enqueue([adamw = state_.machine.flat().adamw, own, outcome,
                      w = state_.master.as<float>().subspan(static_cast<std::size_t>(segment.flat), size),
                      m = state_.m.as<float>().subspan(moments, size),
                      v = state_.v.as<float>().subspan(moments, size),
                      g = gradients.subspan(static_cast<std::size_t>(inside), size)](NativeStream native) {
        adamw(native, own, outcome, w, m, v, g);
      });
    }
    const bool gathers = config_.train.sharding == 1 && plan_.ranks > 1;
    gathered_[b] =
        gathers ? comm_.all_gather(pieces_of(plan_.buckets[b], state_.master),
                                   fmt::format("all_gather of parameters, bucket {}", b), stream.record())
                : Event();
  }
}

void Update::receive(std::size_t bucket) {
  if (!gathered_[bucket]) return;
  if (plan_.ranks > 1) waits_.during([&] { state_.machine.stream().wait(*gathered_[bucket]); });
  state_.refresh_compute(plan_.buckets[bucket].range);
  gathered_[bucket].reset();
}

void Update::receive_all() {
  for (std::size_t b = 0; b < gathered_.size(); ++b) receive(b);
}

// What the update of a bucket reads, from the first element that this rank updates on.
std::span<const float> Update::gradient(std::size_t bucket, std::span<float> sum) {
  if (config_.train.sharding == 1) return sum;
  Stream& stream = state_.machine.stream();
  const Range range = plan_.buckets[bucket].range, piece = plan_.own_piece(bucket);
  const std::span<float> space = state_.gradients[0].as<float>();
  const std::span<float> own = space.subspan(static_cast<std::size_t>(piece.begin), sum.size());
  if (sum.data() != own.data()) stream.copy(own.data(), sum.data(), sum.size_bytes());
  if (plan_.ranks > 1) {
    const Event gathered =
        comm_.all_gather(pieces_of(plan_.buckets[bucket], state_.gradients[0]),
                         fmt::format("all_gather of gradients, bucket {}", bucket), stream.record());
    waits_.during([&] { stream.wait(gathered); });
  }
  return space.subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
}

}  // namespace muster
