#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"
#include "model/ops/cpu/matmul.hpp"
#include "model/ops/cross_entropy.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

// Rows whose logits exist at once: enough that a pass over the table costs little beside its products.
constexpr std::int64_t chunk_rows = 1024;

std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

// The three products of a chunk of rows. Pointers may be null while sizes are computed.
struct Products {
  Matmul forward, input_gradient, weight_gradient;

  // x and dx start at the chunk.
  Products(DType type, std::int64_t rows, std::int64_t classes, std::int64_t width, std::int64_t stride,
           const void* x, const void* w, void* logits, void* dx, float* dw) {
    const MatrixView chunk{x, width}, table{w, width}, dlogits{logits, stride};
    forward = {type,
               {rows, classes, width},
               chunk,
               table.transposed(),
               {.data = logits, .dtype = type, .stride = stride}};
    input_gradient = {
        type, {rows, width, classes}, dlogits, table, {.data = dx, .dtype = type, .stride = width}};
    weight_gradient = {
        type, {classes, width, rows}, dlogits.transposed(), chunk, {.data = dw, .stride = width}};
  }
};

// Where things lie in the workspace.
struct Layout {
  std::int64_t rows, stride;  // of the logits of a chunk; the stride is no multiple of a page
  std::uint64_t losses = 0, logits, products, bytes;

  Layout(const LinearCrossEntropy& op, const TensorType& x, int threads)
      : rows(std::min(x.rows(), chunk_rows)) {
    stride = (op.classes() + 31) / 32 * 32;
    if (stride % 512 == 0) stride += 32;
    logits = whole_pages(static_cast<std::uint64_t>(x.rows()) * sizeof(double));
    products = logits + whole_pages(static_cast<std::uint64_t>(rows * stride) * size_of(x.dtype));
    std::uint64_t largest = 0;
    // The last chunk may be shorter, and a shorter one may ask for more.
    for (const std::int64_t count : {rows, x.rows() % rows}) {
      if (count == 0) continue;
      const Products all(x.dtype, count, op.classes(), x.columns(), stride, nullptr, nullptr, nullptr,
                         nullptr, nullptr);
      largest = std::max(largest, matmul_workspace(all.forward, threads));
      if (!op.training()) continue;
      largest = std::max({largest, matmul_workspace(all.input_gradient, threads),
                          matmul_workspace(all.weight_gradient, threads)});
    }
    bytes = products + largest;
  }
};

// A value for the lanes beyond the row.
MUSTER_INLINE Floats otherwise(Floats v, WholeVector, float) { return v; }
MUSTER_INLINE Floats otherwise(Floats v, PartOfVector part, float filling) {
  return select(lane_numbers() < static_cast<std::int32_t>(part.count), v, broadcast(filling));
}

// The row's loss; with `gradient` its logits become their gradients.
template <class T>
double softmax_row(T* logits, std::int64_t classes, std::int32_t target, bool gradient) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  Floats most = broadcast(lowest);
  for_lanes(0, classes, [&](std::int64_t at, auto part) {
    most = max(otherwise(load(logits + at, part), part, lowest), most);
  });
  const float maximum = largest(most);
  const float target_logit = static_cast<float>(logits[target]);

  // f32 over stretches of 2,048 classes, f64 over stretches.
  double total = 0;
  for (std::int64_t begin = 0; begin < classes; begin += 2048) {
    Floats sum_of_part{};
    for_lanes(begin, std::min(classes, begin + 2048), [&](std::int64_t at, auto part) {
      sum_of_part += otherwise(exp(load(logits + at, part) - maximum), part, 0);
    });
    total += static_cast<double>(sum(sum_of_part));
  }
  if (gradient) {
    const float scale = static_cast<float>(1 / total);
    const float correct = (exp(broadcast(target_logit - maximum)) * scale)[0] - 1.0f;
    for_lanes(0, classes, [&](std::int64_t at, auto part) {
      store(logits + at, exp(load(logits + at, part) - maximum) * scale, part);
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
  const std::int64_t n = x.rows(), width = x.columns(), classes = op.classes();
  const bool training = op.training();
  T* const dx = training ? args.outputs[1].as<T>() : nullptr;
  float* const dw = training && args.outputs.size() > 2 ? args.outputs[2].as<float>() : nullptr;
  for (std::int64_t row = 0; row < n; ++row) check(targets[row] < classes, "a target is one of the classes");

  for (std::int64_t begin = 0; begin < n; begin += layout.rows) {
    const std::int64_t rows = std::min(layout.rows, n - begin);
    Products products(x.dtype(), rows, classes, width, layout.stride, x.as<T>() + begin * width, w.data,
                      logits, training ? dx + begin * width : nullptr, dw);
    matmul(products.forward, args.workspace + layout.products);
    parallel_tasks(rows, [&](std::int64_t row, int) {
      T* const line = logits + row * layout.stride;
      const std::int32_t target = targets[begin + row];
      losses[begin + row] = target < 0 ? 0 : softmax_row(line, classes, target, training);
      if (target < 0) std::fill_n(line, classes, T{});
    });
    if (!training) continue;
    matmul(products.input_gradient, args.workspace + layout.products);
    products.weight_gradient.c.accumulate = args.accumulate || begin > 0;
    if (dw) matmul(products.weight_gradient, args.workspace + layout.products);
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

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
