// Rotary positions. With T bytes an element it reads T and writes T (in place: only of the heads that turn); 6 FLOPs
// for a pair of elements. A block turns a few rows: their cosines and sines are computed once, in f64, and serve all
// heads.
#include <algorithm>
#include <cmath>

#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/kernels.hpp"
#include "model/ops/rope.hpp"

namespace muster::cuda {
namespace {

constexpr int largest_half = block_threads;  // half of the largest head

struct Frequencies {
  double of[largest_half];
};

// Of angles below a million, to about the precision of f64 angles: far beyond f32.
__device__ inline void cos_sin(double angle, float& cosine, float& sine) {
  // angle = n pi/2 + r with |r| <= pi/4. The first part of pi/2 has 33 bits (Sun's fdlibm), so that its product with
  // n is exact.
  const double n = rint(angle * 0x1.45f306dc9c883p-1);
  const double r = fma(-n, 6.07710050650619224932e-11, fma(-n, 1.57079632673412561417e+00, angle));
  const double r2 = r * r;
  // Taylor series; the first terms left out are below 1e-13 (sine) and 1e-14 (cosine).
  const double s =
      r +
      r * r2 *
          (-1.0 / 6 + r2 * (1.0 / 120 + r2 * (-1.0 / 5040 + r2 * (1.0 / 362880 + r2 * (-1.0 / 39916800)))));
  const double c =
      1.0 +
      r2 * (-1.0 / 2 +
            r2 * (1.0 / 24 +
                  r2 * (-1.0 / 720 + r2 * (1.0 / 40320 + r2 * (-1.0 / 3628800 + r2 * (1.0 / 479001600))))));
  const int quadrant = static_cast<int>(n);
  const double x = quadrant % 2 != 0 ? s : c, y = quadrant % 2 != 0 ? c : s;
  cosine = static_cast<float>(((quadrant + 1) & 2) != 0 ? -x : x);
  sine = static_cast<float>((quadrant & 2) != 0 ? -y : y);
}

struct Turn {
  std::int64_t rows;
  int columns, heads, half;
  int rows_of_block;
  bool inverse;
};

// W elements of the lower half of a head and W of the upper one make an item; of the columns that do not turn, W.
template <int W, class T>
__global__ void __launch_bounds__(block_threads)
    rope_kernel(T* y, const T* x, const std::int32_t* positions, Turn turn, Frequencies frequencies) {
  alignas(16) __shared__ float cosines[block_threads], sines[block_threads];
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * turn.rows_of_block;
  const int rows =
      static_cast<int>(std::min(static_cast<std::int64_t>(turn.rows_of_block), turn.rows - first));
  if (const int k = static_cast<int>(threadIdx.x); k < rows * turn.half) {
    const int row = k / turn.half;
    const double position = positions[first + row];
    cos_sin((turn.inverse ? -position : position) * frequencies.of[k - row * turn.half], cosines[k],
            sines[k]);
  }
  __syncthreads();

  const int items_of_head = turn.half / W, items_of_row = turn.heads * items_of_head;
  for (int item = static_cast<int>(threadIdx.x); item < rows * items_of_row; item += block_threads) {
    const int row = item / items_of_row, head = (item - row * items_of_row) / items_of_head;
    const int i = (item - row * items_of_row - head * items_of_head) * W;
    const std::int64_t low = (first + row) * turn.columns + head * 2 * turn.half + i, high = low + turn.half;
    const Floats<W> a = load_floats<W>(x + low), b = load_floats<W>(x + high);
    const Floats<W> cosine = load_floats<W>(cosines + row * turn.half + i);
    const Floats<W> sine = load_floats<W>(sines + row * turn.half + i);
    Floats<W> y_low, y_high;
    for (int k = 0; k < W; ++k) {
      y_low[k] = fmaf(a[k], cosine[k], -(b[k] * sine[k]));
      y_high[k] = fmaf(b[k], cosine[k], a[k] * sine[k]);
    }
    store_floats(y + low, y_low);
    store_floats(y + high, y_high);
  }

  const int rotated = turn.heads * 2 * turn.half, others = (turn.columns - rotated) / W;
  if (y == x) return;
  for (int item = static_cast<int>(threadIdx.x); item < rows * others; item += block_threads) {
    const int row = item / others;
    const std::int64_t at = (first + row) * turn.columns + rotated + (item - row * others) * W;
    store_floats(y + at, load_floats<W>(x + at));
  }
}

}  // namespace

void rope(const Op& op, const KernelArgs& args) {
  const auto& rope = static_cast<const Rope&>(op);
  if (args.inputs[0].elements() == 0) return;
  Turn turn{};
  turn.rows = args.inputs[0].rows();
  turn.columns = static_cast<int>(args.inputs[0].columns());
  turn.heads = rope.rotated_heads();
  turn.half = rope.head_size() / 2;
  turn.inverse = rope.inverse();
  check(turn.half <= largest_half, "rotary positions of heads of at most 512 columns");
  turn.rows_of_block = std::clamp(block_threads / std::max(turn.half, 1), 1, 16);
  Frequencies frequencies{};
  for (int i = 0; i < turn.half; ++i) frequencies.of[i] = std::pow(rope.base(), -2.0 * i / rope.head_size());

  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    T* y = args.outputs[0].as<T>();
    const T* x = args.inputs[0].as<const T>();
    constexpr int vector = Vector<T>::size;
    with_width<vector>(turn.half % vector == 0 && turn.columns % vector == 0 && aligned(16, y, x),
                       [&](auto w) {
                         const dim3 grid(static_cast<unsigned>(divide_up(turn.rows, turn.rows_of_block)));
                         launch(rope_kernel<w(), T>, grid, block_threads, 0, args.stream, y, x,
                                args.inputs[1].as<const std::int32_t>(), turn, frequencies);
                       });
  });
}

}  // namespace muster::cuda
