// One thread a document; some 40 bytes written for each.
#include "core/cuda/launch.hpp"
#include "model/ops/cuda/document_layout.hpp"

namespace muster::cuda {
namespace {

constexpr int threads = 256;

__global__ void lay_out(const std::int32_t* starts, std::int64_t documents, std::int64_t length, int heads,
                        DocumentLayout::Widths widths, std::int64_t count, DocumentLayout layout) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i > count) return;
  const std::int64_t begin = starts[i < documents ? i : documents];
  layout.q[i] = begin * widths.q;
  layout.kv[i] = begin * widths.kv;
  layout.o[i] = begin * widths.o;
  layout.lse[i] = begin / length * heads * length + begin % length;
  if (i < count)
    layout.lengths[i] = static_cast<std::int32_t>(starts[i + 1 < documents ? i + 1 : documents] - begin);
}

}  // namespace

DocumentLayout::DocumentLayout(std::byte* memory, std::int64_t count)
    : q(reinterpret_cast<std::int64_t*>(memory)),
      kv(q + count + 1),
      o(kv + count + 1),
      lse(o + count + 1),
      lengths(reinterpret_cast<std::int32_t*>(lse + count + 1)),
      count_(count) {}

void DocumentLayout::fill(const std::int32_t* starts, std::int64_t documents, std::int64_t length, int heads,
                          Widths widths, NativeStream stream) const {
  const auto blocks = static_cast<unsigned>((count_ + threads) / threads);
  launch(lay_out, dim3(blocks), dim3(threads), 0, stream, starts, documents, length, heads, widths, count_,
         *this);
}

}  // namespace muster::cuda
