// LayerNorm and RMSNorm with the residual addition, and their gradient. A block computes row after row, its threads
// owning columns (norm_layout.hpp), so that a row is read once and stays in registers, weights are read once a block,
// and sums over rows need no exchange. (Beyond 8,192 columns registers do not hold all of this: weights are read for
// each row, and the gradient reads a row twice, the second time from the L2 cache.) With S the bytes of an element of
// the stream and Y those of branch and output:
//   residual_norm  reads S + Y, writes S + Y an element, 10 FLOPs
//   renormalize    reads S, writes Y, 4 FLOPs
//   norm_gradient  reads Y + 2 S, writes S (+ Y), 16 FLOPs; partial sums of 1/8 of the rows or fewer, twice
#include "model/ops/cuda/column_sums.hpp"
#include "model/ops/cuda/context.hpp"
#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/kernels.hpp"
#include "model/ops/cuda/norm_layout.hpp"
#include "model/ops/norm.hpp"

namespace muster::cuda {
namespace {

constexpr int most_threads = 512;

__device__ inline int column_of(int group, int width) {
  return (group * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * width;
}

// A thread's part of a vector over columns.
template <int W, int G>
struct Part {
  Floats<W> groups[G];
  __device__ Floats<W>& operator[](int g) { return groups[g]; }
};

// Whether registers hold all that a thread needs of a row and of the weights.
template <int W, int G>
inline constexpr bool all_in_registers = W* G <= 16;

// A thread's part of a weight or a bias (null: zeros), kept in registers where they hold it.
template <int W, int G>
class Weights {
 public:
  __device__ Weights(const float* vector, int columns) : vector_(vector) {
    if constexpr (kept)
      for (int g = 0; g < G; ++g)
        if (const int c = column_of(g, W); vector && c < columns) part_[g] = load_floats<W>(vector + c);
  }
  // Of group g, which begins at column c.
  __device__ Floats<W> operator()(int g, int c) {
    if constexpr (kept) return part_[g];
    return vector_ ? load_floats<W>(vector_ + c) : Floats<W>{};
  }

 private:
  static constexpr bool kept = all_in_registers<W, G>;
  const float* vector_;
  Part<W, kept ? G : 1> part_{};
};

// The one place where rows are normalised, so that residual_norm and renormalize give the same bits.
template <int W, class Y>
__device__ void normalize(const Floats<W>& s, float mean, float rstd, const Floats<W>& weight,
                          const Floats<W>& bias, bool biased, Y* y) {
  Floats<W> out;
  for (int i = 0; i < W; ++i) {
    const float h = (s[i] - mean) * rstd;
    out[i] = biased ? fmaf(h, weight[i], bias[i]) : h * weight[i];
  }
  store_floats(y, out);
}

template <class S, class Y>
struct ForwardRows {
  const S* residual;
  const Y* branch;  // may be null, and then so is sum
  const float *weight, *bias;
  Y* y;
  float* statistics;
  S* sum;
  std::int64_t rows;
  int columns;
  float epsilon;
  bool centred;
};

template <int W, int G, class S, class Y>
__global__ void __launch_bounds__(most_threads) residual_norm_kernel(ForwardRows<S, Y> p) {
  __shared__ float scratch[warp_size];
  Weights<W, G> weight(p.weight, p.columns), bias(p.bias, p.columns);
  const float count = static_cast<float>(p.columns);
  for (std::int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const std::int64_t at = row * p.columns;
    Part<W, G> s;
    float total = 0;
    for (int g = 0; g < G; ++g) {
      const int c = column_of(g, W);
      if (c >= p.columns) continue;
      s[g] = load_floats<W>(p.residual + at + c);
      if (p.branch) {
        // As rounded, so that backward and renormalize see the same numbers.
        const Floats<W> branch = load_floats<W>(p.branch + at + c);
        for (int i = 0; i < W; ++i) s[g][i] = to_float(from_float<S>(s[g][i] + branch[i]));
        store_floats(p.sum + at + c, s[g]);
      }
      for (int i = 0; i < W; ++i) total += s[g][i];
    }
    const float mean = p.centred ? block_sum(total, scratch) / count : 0.0f;
    float squares = 0;
    for (int g = 0; g < G; ++g) {
      if (column_of(g, W) >= p.columns) continue;
      for (int i = 0; i < W; ++i) squares = fmaf(s[g][i] - mean, s[g][i] - mean, squares);
    }
    const float rstd = 1.0f / sqrtf(block_sum(squares, scratch) / count + p.epsilon);
    for (int g = 0; g < G; ++g) {
      const int c = column_of(g, W);
      if (c < p.columns)
        normalize(s[g], mean, rstd, weight(g, c), bias(g, c), p.bias != nullptr, p.y + at + c);
    }
    if (threadIdx.x == 0) {
      p.statistics[2 * row] = mean;
      p.statistics[2 * row + 1] = rstd;
    }
  }
}

template <int W, int G, class S, class Y>
__global__ void __launch_bounds__(most_threads)
    renormalize_kernel(const S* s, const float* statistics, const float* weights, const float* biases, Y* y,
                       std::int64_t rows, int columns) {
  Weights<W, G> weight(weights, columns), bias(biases, columns);
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float mean = statistics[2 * row], rstd = statistics[2 * row + 1];
    for (int g = 0; g < G; ++g) {
      const int c = column_of(g, W);
      if (c >= columns) continue;
      normalize(load_floats<W>(s + row * columns + c), mean, rstd, weight(g, c), bias(g, c),
                biases != nullptr, y + row * columns + c);
    }
  }
}

template <class D, class S>
struct BackwardRows {
  const D* dy;
  const S* d_sum;  // may be null, or ds
  const S* s;
  const float *statistics, *weight;
  S* ds;
  D* copy;                 // may be null
  float *dweight, *dbias;  // partial sums [blocks, C]; dbias may be null
  std::int64_t rows, rows_of_block;
  int columns;
  bool centred;
};

// Sums a and b over the block. One barrier: `scratch` is not that of the call before.
__device__ inline void block_sums(float& a, float& b, float (*scratch)[warp_size]) {
  const int warps = static_cast<int>(blockDim.x) / warp_size,
            lane = static_cast<int>(threadIdx.x) % warp_size;
  a = warp_sum(a);
  b = warp_sum(b);
  if (lane == 0) {
    scratch[0][threadIdx.x / warp_size] = a;
    scratch[1][threadIdx.x / warp_size] = b;
  }
  __syncthreads();
  a = warp_sum(lane < warps ? scratch[0][lane] : 0.0f);
  b = warp_sum(lane < warps ? scratch[1][lane] : 0.0f);
}

// What the gradient takes of a row's elements: normalised, and the gradient of that.
template <int W>
struct Normalized {
  Floats<W> h, tangent;

  __device__ static Normalized of(const Floats<W>& dy, const Floats<W>& s, const Floats<W>& weight,
                                  float mean, float rstd) {
    Normalized n;
    for (int i = 0; i < W; ++i) {
      n.h[i] = (s[i] - mean) * rstd;
      n.tangent[i] = dy[i] * weight[i];
    }
    return n;
  }
};

template <int W, int G, class D, class S>
__global__ void __launch_bounds__(most_threads) norm_gradient_kernel(BackwardRows<D, S> p) {
  constexpr bool kept = all_in_registers<W, G>;
  __shared__ float scratch[2][2][warp_size];
  Weights<W, G> weight(p.weight, p.columns);
  Part<W, G> dweight{}, dbias{};
  const float count = static_cast<float>(p.columns);
  const std::int64_t begin = blockIdx.x * p.rows_of_block, end = min(p.rows, begin + p.rows_of_block);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t at = row * p.columns;
    const float mean = p.statistics[2 * row], rstd = p.statistics[2 * row + 1];
    Normalized<W> row_kept[kept ? G : 1];
    Part<W, kept ? G : 1> d_sum_kept{};
    float sum_g = 0, sum_gh = 0;
    for (int g = 0; g < G; ++g) {
      const int c = column_of(g, W);
      if (c >= p.columns) continue;
      const Floats<W> dy = load_floats<W>(p.dy + at + c), s = load_floats<W>(p.s + at + c);
      if (kept && p.d_sum) d_sum_kept[g] = load_floats<W>(p.d_sum + at + c);
      const Normalized<W> n = Normalized<W>::of(dy, s, weight(g, c), mean, rstd);
      for (int i = 0; i < W; ++i) {
        dweight[g][i] = fmaf(dy[i], n.h[i], dweight[g][i]);
        dbias[g][i] += dy[i];
        sum_g += n.tangent[i];
        sum_gh = fmaf(n.tangent[i], n.h[i], sum_gh);
      }
      if constexpr (kept) row_kept[g] = n;
    }
    block_sums(sum_g, sum_gh, scratch[row % 2]);
    const float mean_g = p.centred ? sum_g / count : 0.0f, mean_gh = sum_gh / count;
    for (int g = 0; g < G; ++g) {
      const int c = column_of(g, W);
      if (c >= p.columns) continue;
      Normalized<W> n;
      Floats<W> ds{};
      if constexpr (kept) {
        n = row_kept[g];
        ds = d_sum_kept[g];
      } else {
        n = Normalized<W>::of(load_floats<W>(p.dy + at + c), load_floats<W>(p.s + at + c), weight(g, c), mean,
                              rstd);
        if (p.d_sum) ds = load_floats<W>(p.d_sum + at + c);
      }
      for (int i = 0; i < W; ++i) ds[i] = fmaf(rstd, fmaf(-n.h[i], mean_gh, n.tangent[i] - mean_g), ds[i]);
      store_floats(p.ds + at + c, ds);
      if (p.copy) store_floats(p.copy + at + c, ds);
    }
  }
  for (int g = 0; g < G; ++g) {
    const int c = column_of(g, W);
    if (c >= p.columns) continue;
    store_floats(p.dweight + std::int64_t{blockIdx.x} * p.columns + c, dweight[g]);
    if (p.dbias) store_floats(p.dbias + std::int64_t{blockIdx.x} * p.columns + c, dbias[g]);
  }
}

// Calls body(width, groups), both integral constants.
template <class Body>
void with_cut(const NormCut& cut, Body&& body) {
  check(cut.threads <= most_threads, "a norm's row has at most 32,768 columns, 8,192 if not a multiple of 4");
  using std::integral_constant;
  if (cut.width == 1) return body(integral_constant<int, 1>{}, integral_constant<int, 16>{});
  switch (cut.groups) {
    case 1:
      return body(integral_constant<int, 4>{}, integral_constant<int, 1>{});
    case 2:
      return body(integral_constant<int, 4>{}, integral_constant<int, 2>{});
    case 4:
      return body(integral_constant<int, 4>{}, integral_constant<int, 4>{});
    case 8:
      return body(integral_constant<int, 4>{}, integral_constant<int, 8>{});
    default:
      return body(integral_constant<int, 4>{}, integral_constant<int, 16>{});
  }
}

// Calls body with null pointers of the two element types. A stream is never narrower than what is computed with.
template <class Body>
void with_types(DType stream, DType other, Body&& body) {
  with_element_type(other, [&](auto* like) {
    if (stream == DType::f32) return body(static_cast<float*>(nullptr), like);
    if constexpr (sizeof(*like) == 2)
      body(like, like);
    else
      throw Defect("a norm has a stream in bf16 beside f32");
  });
}

// Blocks that share `rows`: as many as run at once, so that each reads the weights for many rows.
dim3 blocks_of(const KernelArgs& args, std::int64_t rows, int threads) {
  const std::int64_t at_once = std::int64_t{context_of(args).multiprocessors} * (2048 / threads);
  return dim3(static_cast<unsigned>(std::min(rows, at_once)));
}

}  // namespace

void residual_norm(const Op& op, const KernelArgs& args) {
  const auto& norm = static_cast<const ResidualNorm&>(op);
  const TensorView &residual = args.inputs[0], &branch = args.inputs[1], &y = args.outputs[0];
  const TensorView &weight = args.inputs[2], &bias = args.inputs[3];
  std::byte* const sum = branch ? args.outputs[2].data : nullptr;
  const std::int64_t columns = residual.columns();
  check(!branch || branch.dtype() == y.dtype(), "a branch has the type of the norm's output");
  const NormCut cut = NormCut::of(columns, columns % 4 == 0 && aligned(16, residual.data, branch.data,
                                                                       weight.data, bias.data, y.data, sum));
  with_types(residual.dtype(), y.dtype(), [&](auto* like_stream, auto* like) {
    with_cut(cut, [&](auto width, auto groups) {
      using S = std::remove_pointer_t<decltype(like_stream)>;
      using Y = std::remove_pointer_t<decltype(like)>;
      const ForwardRows<S, Y> rows{residual.as<S>(),
                                   branch.as<Y>(),
                                   weight.as<float>(),
                                   bias.as<float>(),
                                   y.as<Y>(),
                                   args.outputs[1].as<float>(),
                                   reinterpret_cast<S*>(sum),
                                   residual.rows(),
                                   static_cast<int>(columns),
                                   norm.epsilon(),
                                   norm.kind() == NormKind::layer};
      launch(residual_norm_kernel<width(), groups(), S, Y>, blocks_of(args, rows.rows, cut.threads),
             dim3(static_cast<unsigned>(cut.threads)), 0, args.stream, rows);
    });
  });
}

void renormalize(const Op&, const KernelArgs& args) {
  const TensorView &s = args.inputs[0], &statistics = args.inputs[1], &y = args.outputs[0];
  const TensorView &weight = args.inputs[2], &bias = args.inputs[3];
  const std::int64_t columns = s.columns();
  const NormCut cut =
      NormCut::of(columns, columns % 4 == 0 && aligned(16, s.data, weight.data, bias.data, y.data));
  with_types(s.dtype(), y.dtype(), [&](auto* like_stream, auto* like) {
    with_cut(cut, [&](auto width, auto groups) {
      using S = std::remove_pointer_t<decltype(like_stream)>;
      using Y = std::remove_pointer_t<decltype(like)>;
      launch(renormalize_kernel<width(), groups(), S, Y>, blocks_of(args, s.rows(), cut.threads),
             dim3(static_cast<unsigned>(cut.threads)), 0, args.stream, s.as<S>(), statistics.as<float>(),
             weight.as<float>(), bias.as<float>(), y.as<Y>(), s.rows(), static_cast<int>(columns));
    });
  });
}

void norm_gradient(const Op& op, const KernelArgs& args) {
  const auto& norm = static_cast<const NormGradient&>(op);
  const TensorView &dy = args.inputs[0], &d_sum = args.inputs[1], &s = args.inputs[2], &ds = args.outputs[0];
  const TensorView &statistics = args.inputs[3], &weight = args.inputs[4];
  std::byte* const copy = args.outputs.size() > (norm.bias() ? 3u : 2u) ? args.outputs.back().data : nullptr;
  const std::int64_t rows = dy.rows(), columns = dy.columns(), blocks = norm_gradient_blocks(rows, columns);
  float* const dweight = reinterpret_cast<float*>(args.workspace);
  float* const dbias = norm.bias() ? dweight + blocks * columns : nullptr;
  const NormCut cut = NormCut::of(
      columns, columns % 4 == 0 && aligned(16, dy.data, d_sum.data, s.data, weight.data, ds.data, copy));
  with_types(s.dtype(), dy.dtype(), [&](auto* like_stream, auto* like) {
    with_cut(cut, [&](auto width, auto groups) {
      using D = std::remove_pointer_t<decltype(like)>;
      using S = std::remove_pointer_t<decltype(like_stream)>;
      const BackwardRows<D, S> parts{dy.as<D>(),
                                     d_sum.as<S>(),
                                     s.as<S>(),
                                     statistics.as<float>(),
                                     weight.as<float>(),
                                     ds.as<S>(),
                                     reinterpret_cast<D*>(copy),
                                     dweight,
                                     dbias,
                                     rows,
                                     norm_gradient_rows(rows, columns),
                                     static_cast<int>(columns),
                                     norm.kind() == NormKind::layer};
      launch(norm_gradient_kernel<width(), groups(), D, S>, dim3(static_cast<unsigned>(blocks)),
             dim3(static_cast<unsigned>(cut.threads)), 0, args.stream, parts);
    });
  });
  sum_blocks(dweight, blocks, columns, args.outputs[1].as<float>(), args.accumulate, args.stream);
  if (dbias) sum_blocks(dbias, blocks, columns, args.outputs[2].as<float>(), args.accumulate, args.stream);
}

}  // namespace muster::cuda
