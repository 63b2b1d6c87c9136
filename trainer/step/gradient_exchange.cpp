#include "trainer/step/gradient_exchange.hpp"

#include <algorithm>

namespace muster {

GradientExchange::GradientExchange(const RunPlan& plan, ModelState& state, Communicator& comm,
                                   WaitClock& waits)
    : plan_(plan),
      state_(state),
      comm_(comm),
      waits_(waits),
      adds_(combine_order(plan.roots)),
      arrived_(plan.buckets.size()) {
  std::vector<int> count(static_cast<std::size_t>(plan.ranks));
  for (const int owner : plan.root_owner) index_in_rank_.push_back(count[static_cast<std::size_t>(owner)]++);
  const std::int64_t foreign = foreign_roots(plan);
  std::int64_t elements = 0;
  for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
    staging_begin_.push_back(elements);
    elements += foreign * plan.own_piece(b).size();
  }
  staging_ = state.machine.take(MemoryKind::communication, bytes(plan));
}

std::int64_t GradientExchange::foreign_roots(const RunPlan& plan) {
  return std::ranges::count_if(plan.root_owner, [&](int owner) { return owner != plan.rank; });
}

std::uint64_t GradientExchange::bytes(const RunPlan& plan) {
  if (plan.reduce_scatters) return 0;
  return Buffer::counted(
      static_cast<std::uint64_t>(foreign_roots(plan) * owned_elements(plan.buckets, plan.rank)) *
      sizeof(float));
}

// This rank's piece of a root: in its own gradients, or in the staging memory.
std::span<float> GradientExchange::operand(std::size_t root, std::size_t bucket) const {
  const Range piece = plan_.own_piece(bucket);
  const auto size = static_cast<std::size_t>(piece.size());
  if (plan_.root_owner[root] == plan_.rank)
    return state_.gradients[static_cast<std::size_t>(index_in_rank_[root])].as<float>().subspan(
        static_cast<std::size_t>(piece.begin), size);
  const auto foreign_before =
      std::count_if(plan_.root_owner.begin(), plan_.root_owner.begin() + static_cast<long>(root),
                    [&](int owner) { return owner != plan_.rank; });
  return staging_.as<float>().subspan(
      static_cast<std::size_t>(staging_begin_[bucket] + foreign_before * piece.size()), size);
}

void GradientExchange::start(const entry::Send& entry) {
  const std::size_t bucket = entry.bucket;
  const Event ready = state_.machine.stream().record();
  arrived_[bucket].clear();
  if (plan_.reduce_scatters) {
    std::vector<std::span<float>> pieces;
    for (const Range& piece : plan_.buckets[bucket].pieces)
      pieces.push_back(state_.gradients[0].as<float>().subspan(static_cast<std::size_t>(piece.begin),
                                                               static_cast<std::size_t>(piece.size())));
    arrived_[bucket].push_back(comm_.reduce_scatter(pieces, name_of(entry), ready));
    return;
  }
  const auto ranks = static_cast<std::size_t>(plan_.ranks);
  const int rounds = 1 + *std::max_element(index_in_rank_.begin(), index_in_rank_.end());
  // Round k carries the k-th root of every rank that has so many.
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::span<const std::byte>> send(ranks);
    std::vector<std::span<std::byte>> receive(ranks);
    for (std::size_t root = 0; root < plan_.roots.size(); ++root) {
      if (index_in_rank_[root] != round) continue;
      const auto owner = static_cast<std::size_t>(plan_.root_owner[root]);
      if (plan_.root_owner[root] != plan_.rank) {
        receive[owner] = std::as_writable_bytes(operand(root, bucket));
        continue;
      }
      const std::span<float> mine = state_.gradients[static_cast<std::size_t>(round)].as<float>();
      for (std::size_t peer = 0; peer < ranks; ++peer) {
        const Range piece = plan_.buckets[bucket].pieces[peer];
        if (peer != owner)
          send[peer] = std::as_bytes(
              mine.subspan(static_cast<std::size_t>(piece.begin), static_cast<std::size_t>(piece.size())));
      }
    }
    arrived_[bucket].push_back(comm_.all_to_all(send, receive, name_of(entry), ready));
  }
}

std::span<float> GradientExchange::finish(std::size_t bucket) {
  Stream& stream = state_.machine.stream();
  waits_.during([&] {
    for (const Event& event : arrived_[bucket]) stream.wait(event);
  });
  if (plan_.reduce_scatters) {
    const Range piece = plan_.own_piece(bucket);
    return state_.gradients[0].as<float>().subspan(static_cast<std::size_t>(piece.begin),
                                                   static_cast<std::size_t>(piece.size()));
  }
  for (const Add& pair : adds_) {
    const std::span<float> left = operand(static_cast<std::size_t>(pair.left), bucket);
    const std::span<const float> right = operand(static_cast<std::size_t>(pair.right), bucket);
    stream.enqueue(
        [add = state_.machine.flat().add, left, right](NativeStream native) { add(native, left, right); });
  }
  return operand(0, bucket);
}

}  // namespace muster
