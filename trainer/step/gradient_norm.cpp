#include "trainer/step/gradient_norm.hpp"

#include "model/ops/flat.hpp"

namespace muster {

GradientNorm::GradientNorm(const RunPlan& plan, Machine& machine, Communicator& comm, WaitClock& waits)
    : plan_(plan),
      machine_(machine),
      comm_(comm),
      waits_(waits),
      squares_(machine.take(
          MemoryKind::communication,
          static_cast<std::uint64_t>(plan.parameters().elements() / flat_block) * sizeof(double))) {}

void GradientNorm::add(std::size_t bucket, std::span<const float> piece) {
  std::vector<std::span<double>> pieces;
  for (const Range& range : plan_.buckets[bucket].pieces)
    pieces.push_back(squares_.as<double>().subspan(static_cast<std::size_t>(range.begin / flat_block),
                                                   static_cast<std::size_t>(range.size() / flat_block)));
  machine_.stream().enqueue([block_squares = machine_.flat().block_squares, piece,
                             sums = pieces[static_cast<std::size_t>(plan_.rank)]](NativeStream native) {
    block_squares(native, piece, sums);
  });
  std::vector<std::span<std::byte>>& bytes = pieces_.emplace_back();
  for (const std::span<double> sums : pieces) bytes.push_back(std::as_writable_bytes(sums));
}

std::span<double> GradientNorm::gather() {
  if (plan_.ranks > 1)
    waits_.during([&] {
      for (const Event& event :
           comm_.all_gathers(pieces_, "sums of squares of the gradient", machine_.stream().record()))
        machine_.stream().wait(event);
    });
  pieces_.clear();
  return squares_.as<double>();
}

}  // namespace muster
