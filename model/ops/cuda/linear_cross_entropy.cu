// The head: for chunks of rows the logits, the softmax and its gradient over them in place, and the products with
// that gradient. FLOPs: 2 N V C for each of three products. Bytes beside the products': the softmax reads and writes
// the logits once; every chunk reads and writes dw (linear_layout.hpp says why a chunk is as large as it is).
//
// Logits are held in the type of x. In bf16 that halves their bytes, and the tensor cores want their gradient so
// anyway. The products run over all rows of w, padding included, since whole tiles are faster; the softmax leaves
// padding out and its gradient there is zero.
#include <cfloat>

#include "model/ops/cross_entropy.hpp"
#include "model/ops/cuda/context.hpp"
#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/kernels.hpp"
#include "model/ops/cuda/linear_layout.hpp"

namespace muster::cuda {
namespace {

constexpr int most_threads = 1024;

template <class T>
struct SoftmaxRows {
  T* logits;
  std::int64_t stride;
  int classes;
  const std::int32_t* targets;
  double* losses;
  bool gradient;
  int kept;  // elements of a row that shared memory holds between the two passes
};

// A block computes a row: its maximum and sum in one pass, the gradient in a second one from shared memory. What does
// not fit there comes from the L2 cache. Sums of up to 150 classes are in f32, sums of these in f64.
template <class T>
__global__ void __launch_bounds__(most_threads) softmax_kernel(SoftmaxRows<T> p) {
  constexpr int width = Vector<T>::size;
  MUSTER_DYNAMIC_SHARED(T, kept);
  __shared__ float maxima[warp_size];
  __shared__ double sums[warp_size];
  T* const line = p.logits + blockIdx.x * p.stride;
  const int target = p.targets[blockIdx.x], vectors = static_cast<int>(p.stride) / width;
  const int self = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  if (target < 0) {
    if (self == 0) p.losses[blockIdx.x] = 0;
    for (int v = self; p.gradient && v < vectors; v += threads)
      store_floats(line + v * width, Floats<width>{});
    return;
  }
  const bool valid = target < p.classes;
  const float target_logit = valid ? to_float(line[target]) : 0.0f;

  // Finite, so that logits of minus infinity leave no NaN.
  float most = -FLT_MAX, sum = 0;
  for (int v = self; v * width < p.classes; v += threads) {
    const Vector<T> bits = load_vector(line + v * width);
    if (v * width < p.kept) store_vector(kept + v * width, bits);
    float x[width], largest = most;
    for (int i = 0; i < width; ++i) {
      x[i] = v * width + i < p.classes ? to_float(bits[i]) : -INFINITY;
      largest = fmaxf(largest, x[i]);
    }
    sum *= exponential<T>(most - largest);
    most = largest;
    for (int i = 0; i < width; ++i) sum += exponential<T>(x[i] - most);
  }
  const int warps = threads / warp_size, lane = self % warp_size;
  const float warp_most = warp_max(most);
  if (lane == 0) maxima[self / warp_size] = warp_most;
  __syncthreads();
  const float maximum = warp_max(lane < warps ? maxima[lane] : -FLT_MAX);
  const double total = block_sum(static_cast<double>(sum * exponential<T>(most - maximum)), sums);

  // Data is checked where it is read; a target beyond the classes that came all the same must not pass unseen.
  if (self == 0)
    p.losses[blockIdx.x] =
        valid ? log(total) + (static_cast<double>(maximum) - static_cast<double>(target_logit)) : NAN;
  if (!p.gradient) return;
  const float scale = static_cast<float>(1 / total);
  for (int v = self; v < vectors; v += threads) {
    const Floats<width> x = load_floats<width>(v * width < p.kept ? kept + v * width : line + v * width);
    Floats<width> d;
    for (int i = 0; i < width; ++i) {
      const int c = v * width + i;
      d[i] = c < p.classes ? exponential<T>(x[i] - maximum) * scale - (c == target ? 1.0f : 0.0f) : 0.0f;
    }
    store_floats(line + v * width, d);
  }
}

// One block; a thread adds every 1,024th loss, and the threads' sums are added in a fixed tree.
__global__ void __launch_bounds__(most_threads)
    sum_losses_kernel(const double* losses, std::int64_t count, double* loss) {
  __shared__ double scratch[warp_size];
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += losses[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *loss = sum;
}

unsigned whole_warps(std::int64_t threads) {
  return static_cast<unsigned>(
      std::min<std::int64_t>(most_threads, divide_up(threads, warp_size) * warp_size));
}

template <class T>
void softmax(const SoftmaxRows<T>& rows, std::int64_t count, int shared_bytes, NativeStream stream) {
  SoftmaxRows<T> parts = rows;
  constexpr int width = Vector<T>::size, reserved = 1024;  // for what the kernel has of its own
  const std::int64_t fits = (shared_bytes - reserved) / static_cast<int>(sizeof(Vector<T>)) * width;
  parts.kept = rows.gradient ? static_cast<int>(std::min(fits, rows.stride)) : 0;
  const std::size_t bytes = static_cast<std::size_t>(parts.kept) * sizeof(T);
  if (bytes + reserved > 48u << 10) allow_shared(softmax_kernel<T>, bytes);
  launch(softmax_kernel<T>, dim3(static_cast<unsigned>(count)), dim3(whole_warps(rows.stride / width)), bytes,
         stream, parts);
}

template <class T>
void run(const LinearCrossEntropy& op, const KernelArgs& args) {
  const TensorView &x = args.inputs[0], &w = args.inputs[1];
  Context& context = context_of(args);
  const HeadLayout layout(op, *x.type, *w.type);
  const std::int64_t n = x.rows(), width = x.columns(), table = w.rows();
  double* const losses = reinterpret_cast<double*>(args.workspace);
  T* const logits = reinterpret_cast<T*>(args.workspace + layout.logits);
  std::byte* const scratch = args.workspace + layout.products;
  float* const dw = op.training() && args.outputs.size() > 2 ? args.outputs[2].as<float>() : nullptr;

  for (std::int64_t begin = 0; begin < n; begin += layout.rows) {
    const std::int64_t rows = std::min(layout.rows, n - begin);
    const Matrix chunk{x.as<T>() + begin * width, width};
    context.matmuls.run({.inputs = x.dtype(),
                         .m = rows,
                         .n = table,
                         .k = width,
                         .a = chunk,
                         .b = {w.data, width, true},
                         .c = logits,
                         .output = x.dtype(),
                         .c_stride = layout.stride},
                        scratch, args.stream);
    softmax<T>({.logits = logits,
                .stride = layout.stride,
                .classes = static_cast<int>(op.classes()),
                .targets = args.inputs[2].as<std::int32_t>() + begin,
                .losses = losses + begin,
                .gradient = op.training(),
                .kept = 0},
               rows, context.shared_bytes, args.stream);
    if (!op.training()) continue;
    context.matmuls.run({.inputs = x.dtype(),
                         .m = rows,
                         .n = width,
                         .k = table,
                         .a = {logits, layout.stride},
                         .b = {w.data, width},
                         .c = args.outputs[1].as<T>() + begin * width,
                         .output = x.dtype(),
                         .c_stride = width},
                        scratch, args.stream);
    if (!dw) continue;
    context.matmuls.run({.inputs = x.dtype(),
                         .m = table,
                         .n = width,
                         .k = rows,
                         .a = {logits, layout.stride, true},
                         .b = chunk,
                         .c = dw,
                         .output = DType::f32,
                         .c_stride = width,
                         .accumulate = args.accumulate || begin > 0},
                        scratch, args.stream);
  }
  launch(sum_losses_kernel, dim3(1), dim3(whole_warps(n)), 0, args.stream, losses, n,
         args.outputs[0].as<double>());
}

}  // namespace

void linear_cross_entropy(const Op& op, const KernelArgs& args) {
  const auto& head = static_cast<const LinearCrossEntropy&>(op);
  with_element_type(args.inputs[0].dtype(),
                    [&](auto* like) { run<std::remove_pointer_t<decltype(like)>>(head, args); });
}

}  // namespace muster::cuda
