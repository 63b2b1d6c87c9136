// Dropout. With T bytes an element it reads T and writes T; four elements share one Philox, some 100 integer
// operations, so that in bf16 these come close to the time of the bytes. A thread draws for 16 bytes of one sample.
#include <cmath>

#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/kernels.hpp"
#include "model/ops/dropout.hpp"

namespace muster::cuda {
namespace {

// Samples along y; `threshold`: uniform is exact, so that the comparison of integers decides like uniform(word) >= p.
template <int W, class T>
__global__ void __launch_bounds__(block_threads)
    dropout_kernel(T* y, const T* x, std::int64_t length, std::uint32_t threshold, float scale,
                   std::uint32_t key, const StepScalars* scalars) {
  const std::int64_t begin = thread_of_grid() * W;
  if (begin >= length) return;
  const std::int64_t at = blockIdx.y * length + begin;
  Floats<W> values = load_floats<W>(x + at);
  for (int part = 0; part < W; part += 4) {
    const Philox4 words = philox({static_cast<std::uint32_t>((begin + part) / 4),
                                  scalars->first_slot + blockIdx.y, scalars->step, key},
                                 scalars->seed);
    if constexpr (W == 1) {
      values[0] = words[begin % 4] >= threshold ? values[0] * scale : 0.0f;
    } else {
      for (int i = 0; i < 4; ++i)
        values[part + i] = words[static_cast<unsigned>(i)] >= threshold ? values[part + i] * scale : 0.0f;
    }
  }
  store_floats(y + at, values);
}

}  // namespace

void dropout(const Op& op, const KernelArgs& args) {
  const auto& attributes = static_cast<const Dropout&>(op);
  const auto p = static_cast<double>(attributes.probability());
  const std::uint32_t threshold = dropped_below(attributes.probability());
  const auto scale = static_cast<float>(1.0 / (1.0 - p));
  const std::int64_t length = attributes.rows_per_sample() * args.inputs[0].columns();
  if (args.inputs[0].elements() == 0) return;
  const std::int64_t samples = args.inputs[0].elements() / length;
  check(samples <= 65535, "a grid of at most 65,535 samples");
  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    T* y = args.outputs[0].as<T>();
    const T* x = args.inputs[0].as<const T>();
    constexpr int vector = Vector<T>::size;
    with_width<vector>(length % vector == 0 && aligned(16, y, x), [&](auto w) {
      dim3 grid = blocks_for(length / w());
      grid.y = static_cast<unsigned>(samples);
      launch(dropout_kernel<w(), T>, grid, block_threads, 0, args.stream, y, x, length, threshold, scale,
             args.random_key, args.scalars);
    });
  });
}

}  // namespace muster::cuda
