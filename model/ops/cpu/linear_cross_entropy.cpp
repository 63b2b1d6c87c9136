#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/ops/cpu/kernels.hpp"
#include "model/ops/cpu/matmul.hpp"
#include "model/ops/cpu/vector.hpp"
#include "model/ops/cross_entropy.hpp"

namespace muster::cpu {
namespace {

// Rows whose logits exist at once: enough that a pass over the table costs little beside its products.
constexpr std::int64_t chunk_rows = 1024;

std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

// The products of a chunk, and where things lie in the workspace.
struct Layout {
  std::int64_t rows, classes, width, stride;  // stride of the logits' rows, no multiple of a page
  std::uint64_t losses, logits, products, bytes;

  Layout(const LinearCrossEntropy& op, const TensorType& x, int threads)
      : rows(std::min(x.rows(), chunk_rows)), classes(op.classes()), width(x.columns()) {
    stride = (classes + 31) / 32 * 32;
    if (stride % 512 == 0) stride += 32;
    losses = 0;
    logits = whole_pages(static_cast<std::uint64_t>(x.rows()) * sizeof(double));
    products = logits + whole_pages(static_cast<std::uint64_t>(rows * stride) * size_of(x.dtype));
    std::uint64_t largest = matmul_workspace(x.dtype, {rows, classes, width}, threads);
    if (op.training()) {
      largest = std::max(largest, matmul_workspace(x.dtype, {rows, width, classes}, threads));
      largest = std::max(largest, matmul_workspace(x.dtype, {classes, width, rows}, threads));
    }
    bytes = products + largest;
  }
};

// Calls body(offset, count) for the vectors of a row.
template <class Body>
MUSTER_INLINE void for_vectors(std::int64_t begin, std::int64_t end, Body&& body) {
  std::int64_t at = begin;
  for (; at + lanes <= end; at += lanes) body(at, lanes);
  if (at < end) body(at, end - at);
}

// The row's loss; with `gradient` its logits become their gradients.
template <class T>
double softmax_row(T* logits, std::int64_t classes, std::int32_t target, bool gradient) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  const auto outside = [](std::int64_t count, Floats v, float filling) {
    // Lanes beyond the row.
    const Ints lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return count == lanes ? v : select(lane < static_cast<std::int32_t>(count), v, broadcast(filling));
  };
  Floats most = broadcast(lowest);
  for_vectors(0, classes, [&](std::int64_t at, std::int64_t count) {
    most = max(outside(count, load_part(logits + at, count), lowest), most);
  });
  const float maximum = largest(most);
  const float target_logit = static_cast<float>(logits[target]);

  // f32 over stretches of 2,048 classes, f64 over stretches.
  double total = 0;
  for (std::int64_t begin = 0; begin < classes; begin += 2048) {
    Floats part{};
    for_vectors(begin, std::min(classes, begin + 2048), [&](std::int64_t at, std::int64_t count) {
      part += outside(count, exp(load_part(logits + at, count) - maximum), 0);
    });
    total += static_cast<double>(sum(part));
  }
  if (gradient) {
    const float scale = static_cast<float>(1 / total);
    const float correct = (exp(broadcast(target_logit - maximum)) * scale)[0] - 1.0f;
    for_vectors(0, classes, [&](std::int64_t at, std::int64_t count) {
      store_part(logits + at, exp(load_part(logits + at, count) - maximum) * scale, count);
    });
    logits[target] = T(correct);
  }
  return std::log(total) + (static_cast<double>(maximum) - static_cast<double>(target_logit));
}

template <class T>
void run(const LinearCrossEntropy& op, const KernelArgs& args) {
  const TensorView &x = args.inputs[0], &w = args.inputs[1];
  const auto* const targets = args.inputs[2].as<std::int32_t>();
  const Layout layout(op, *x.type, thread_count());
  auto* const losses = reinterpret_cast<double*>(args.workspace + layout.losses);
  T* const logits = reinterpret_cast<T*>(args.workspace + layout.logits);
  std::byte* const products = args.workspace + layout.products;
  const std::int64_t n = x.rows(), width = layout.width, classes = layout.classes;
  const bool training = op.training();
  float* const dw = training && args.outputs.size() > 2 ? args.outputs[2].as<float>() : nullptr;
  const MatrixView table{w.data, width};
  for (std::int64_t row = 0; row < n; ++row) check(targets[row] < classes, "a target is one of the classes");

  for (std::int64_t begin = 0; begin < n; begin += layout.rows) {
    const std::int64_t rows = std::min(layout.rows, n - begin);
    const MatrixView chunk{x.as<T>() + begin * width, width}, dlogits{logits, layout.stride};
    matmul(x.dtype(), {rows, classes, width}, chunk, table.transposed(), {logits, x.dtype(), layout.stride},
           products);
    parallel_tasks(rows, [&](std::int64_t row, int) {
      T* const line = logits + row * layout.stride;
      const std::int32_t target = targets[begin + row];
      losses[begin + row] = target < 0 ? 0 : softmax_row(line, classes, target, training);
      if (target < 0) std::fill_n(line, classes, T{});
    });
    if (!training) continue;
    matmul(x.dtype(), {rows, width, classes}, dlogits, table,
           {args.outputs[1].as<T>() + begin * width, x.dtype(), width}, products);
    if (dw)
      matmul(x.dtype(), {classes, width, rows}, dlogits.transposed(), chunk,
             {dw, DType::f32, width, args.accumulate || begin > 0}, products);
  }
  if (dw && !args.accumulate) std::fill(dw + classes * width, dw + w.rows() * width, 0.0f);
  double loss = 0;
  for (std::int64_t row = 0; row < n; ++row) loss += losses[row];
  *args.outputs[0].as<double>() = loss;
}

}  // namespace

std::uint64_t linear_cross_entropy_workspace(const Op& op, Types inputs, Types, int threads) {
  return Layout(static_cast<const LinearCrossEntropy&>(op), inputs[0], threads).bytes;
}

void linear_cross_entropy(const Op& op, const KernelArgs& args) {
  const auto& cross_entropy = static_cast<const LinearCrossEntropy&>(op);
  args.inputs[0].dtype() == DType::bf16 ? run<bf16>(cross_entropy, args) : run<float>(cross_entropy, args);
}

}  // namespace muster::cpu
