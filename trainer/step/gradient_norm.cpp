#include "trainer/step/gradient_norm.hpp"

#include <algorithm>

#include "comm/reduction.hpp"
#include "model/ops/flat.hpp"

namespace muster {

GradientNorm::GradientNorm(const RunPlan& plan, MemoryAccount& account) : plan_(plan) {
  std::size_t at = 0;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(plan.ranks); ++rank) {
    std::vector<std::size_t>& begin = begin_.emplace_back();
    for (const Bucket& bucket : plan.buckets) {
      begin.push_back(at);
      at += static_cast<std::size_t>(bucket.pieces[rank].size() / flat_block);
    }
    begin.push_back(at);
  }
  packed_ = Buffer(account, MemoryKind::communication, at * sizeof(double));
  ordered_ = Buffer(account, MemoryKind::communication, at * sizeof(double));
}

std::span<double> GradientNorm::packed(int rank, std::size_t bucket) const {
  const auto& begin = begin_[static_cast<std::size_t>(rank)];
  return packed_.as<double>().subspan(begin[bucket], begin[bucket + 1] - begin[bucket]);
}

void GradientNorm::add(std::size_t bucket, std::span<const float> piece, Stream& stream) {
  stream.enqueue(
      [piece, sums = packed(plan_.rank, bucket)] { cpu_flat_kernels().block_squares(piece, sums); });
}

double GradientNorm::squared(Communicator& comm, Stream& stream) {
  std::vector<std::span<std::byte>> pieces;
  for (const auto& begin : begin_)
    pieces.push_back(
        std::as_writable_bytes(packed_.as<double>().subspan(begin.front(), begin.back() - begin.front())));
  comm.all_gather(pieces, "sums of squares of the gradient", stream.record()).wait();

  const std::span<double> ordered = ordered_.as<double>();
  for (int rank = 0; rank < plan_.ranks; ++rank)
    for (std::size_t b = 0; b < plan_.buckets.size(); ++b) {
      const std::span<const double> from = packed(rank, b);
      const std::int64_t block = plan_.buckets[b].pieces[static_cast<std::size_t>(rank)].begin / flat_block;
      std::copy(from.begin(), from.end(), ordered.begin() + block);
    }
  return tree_sum(ordered);
}

}  // namespace muster
