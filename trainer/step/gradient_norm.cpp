#include "trainer/step/gradient_norm.hpp"

#include "model/update/flat_kernels.hpp"

namespace muster {
namespace {

std::uint64_t blocks_bytes(const RunPlan& plan) {
  return static_cast<std::uint64_t>(plan.parameters().elements() / flat_block) * sizeof(double);
}

}  // namespace

GradientNorm::GradientNorm(const RunPlan& plan, Machine& machine, Communicator& comm, WaitClock& waits)
    : plan_(plan),
      machine_(machine),
      comm_(comm),
      waits_(waits),
      squares_(machine.take(MemoryKind::communication, blocks_bytes(plan))) {}

std::uint64_t GradientNorm::bytes(const RunPlan& plan) { return Buffer::counted(blocks_bytes(plan)); }

void GradientNorm::add(std::size_t bucket, std::span<const float> piece) {
  std::vector<std::span<double>> pieces;
  for (const Range& range : plan_.buckets[bucket].pieces)
    pieces.push_back(squares_.as<double>().subspan(static_cast<std::size_t>(range.begin / flat_block),
                                                   static_cast<std::size_t>(range.size() / flat_block)));
  machine_.stream().enqueue([block_squares = machine_.flat().block_squares, piece,
                             sums = pieces[static_cast<std::size_t>(plan_.rank)]](NativeStream native) {
    block_squares(native, piece, sums);
  });
  if (plan_.ranks == 1) return;
  std::vector<std::span<std::byte>>& bytes = pieces_.emplace_back();
  for (const std::span<double> sums : pieces) bytes.push_back(std::as_writable_bytes(sums));
}

void GradientNorm::share(const entry::ShareSquares& entry) {
  waits_.during([&] {
    for (const Event& event : comm_.all_gathers(pieces_, name_of(entry), machine_.stream().record()))
      machine_.stream().wait(event);
  });
  pieces_.clear();
}

}  // namespace muster
