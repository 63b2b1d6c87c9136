#include "trainer/step/update.hpp"

#include <exception>

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

Update::Update(const RunPlan& plan, ModelState& state, Communicator& comm, WaitClock& waits)
    : plan_(plan), state_(state), comm_(comm), waits_(waits), gathered_(plan.buckets.size()) {
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

std::span<float> Update::share(const entry::ShareGradients& entry, std::span<float> sum) {
  Stream& stream = state_.machine.stream();
  const Bucket& bucket = plan_.buckets[entry.bucket];
  const std::span<float> space = state_.gradients[0].as<float>();
  const std::span<float> own =
      space.subspan(static_cast<std::size_t>(plan_.own_piece(entry.bucket).begin), sum.size());
  if (sum.data() != own.data()) stream.copy(own.data(), sum.data(), sum.size_bytes());
  const Event gathered =
      comm_.all_gather(pieces_of(bucket, state_.gradients[0]), name_of(entry), stream.record());
  waits_.during([&] { stream.wait(gathered); });
  return space.subspan(static_cast<std::size_t>(bucket.range.begin),
                       static_cast<std::size_t>(bucket.range.size()));
}

void Update::apply(const entry::Update& entry, double lr, const StepOutcome* outcome,
                   std::span<const float> gradient) {
  const std::size_t bucket = entry.bucket;
  for (const Segment& segment : segments_[bucket]) {
    const auto size = static_cast<std::size_t>(segment.end - segment.begin);
    UpdateRange range;
    range.weights = state_.master.as<float>().subspan(static_cast<std::size_t>(segment.flat), size);
    for (std::size_t slot = 0; slot < state_.slots.size(); ++slot)
      range.state[slot] = state_.state(plan_, slot, bucket, segment);
    range.gradient =
        gradient.subspan(static_cast<std::size_t>(segment.flat - plan_.updated[bucket].begin), size);
    range.decays = plan_.parameters()[segment.parameter].decay;
    state_.machine.stream().enqueue(
        [&optimizer = *plan_.optimizer, &kernels = state_.machine.flat(), lr, outcome,
         range](NativeStream native) { optimizer.update(native, kernels, lr, outcome, range); });
  }
  gathered_[bucket] = Event();
}

void Update::gather(const entry::Gather& entry) {
  gathered_[entry.bucket] = comm_.all_gather(pieces_of(plan_.buckets[entry.bucket], state_.master),
                                             name_of(entry), state_.machine.stream().record());
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

}  // namespace muster
