#include "trainer/step/transfer.hpp"

#include <algorithm>

namespace muster {
namespace {

constexpr std::size_t piece_elements = std::size_t{4} << 20;

}  // namespace

Transfer::Transfer(Machine& machine) : machine_(machine) {
  if (!machine.is_cpu())
    pinned_ = machine.take_staging(MemoryKind::checkpoint, piece_elements * sizeof(float));
}

void Transfer::upload(std::span<float> to, const Fill& fill) {
  if (machine_.is_cpu()) return fill(0, to);
  for (std::size_t begin = 0; begin < to.size(); begin += piece_elements) {
    const auto piece = pinned_.as<float>().first(std::min(piece_elements, to.size() - begin));
    fill(static_cast<std::int64_t>(begin), piece);
    machine_.stream().copy(to.data() + begin, piece.data(), piece.size_bytes());
    machine_.stream().synchronize();
  }
}

void Transfer::download(std::span<const float> from, const Use& use) {
  machine_.stream().synchronize();
  if (machine_.is_cpu()) return use(0, from);
  for (std::size_t begin = 0; begin < from.size(); begin += piece_elements) {
    const auto piece = pinned_.as<float>().first(std::min(piece_elements, from.size() - begin));
    machine_.stream().copy(piece.data(), from.data() + begin, piece.size_bytes());
    machine_.stream().synchronize();
    use(static_cast<std::int64_t>(begin), piece);
  }
}

}  // namespace muster
