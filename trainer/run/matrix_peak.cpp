#include "trainer/run/matrix_peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "core/parallel.hpp"
#include "model/ops/kernel.hpp"
#include "model/ops/linear.hpp"

namespace muster {
namespace {

// A product as large as those of a Transformer's layer, on data that is not all zeros: zeros run faster.
class Product {
 public:
  explicit Product(Precision precision)
      : type_{{size, size}, precision == Precision::bf16 ? DType::bf16 : DType::f32},
        x_(type_.bytes()),
        w_(type_.bytes()),
        y_(type_.bytes()) {
    for (std::int64_t i = 0; i < type_.elements(); ++i) {
      const float value = static_cast<float>((i * 2654435761u >> 8) & 0xffff) * 0x1p-16f - 0.5f;
      if (precision == Precision::bf16) {
        reinterpret_cast<bf16*>(x_.data())[i] = reinterpret_cast<bf16*>(w_.data())[i] = bf16(value);
      } else {
        reinterpret_cast<float*>(x_.data())[i] = reinterpret_cast<float*>(w_.data())[i] = value;
      }
    }
    const Kernel kernel = cpu_kernels().at(op_.name());
    run_ = kernel.run;
    const std::vector<TensorType> inputs = {type_, type_}, outputs = {type_};
    if (kernel.workspace) workspace_.resize(kernel.workspace(op_, inputs, outputs, thread_count()));
  }

  static constexpr double flops = 2.0 * 1024 * 1024 * 1024;

  void run() {
    const std::vector<TensorView> inputs = {{x_.data(), &type_}, {w_.data(), &type_}},
                                  outputs = {{y_.data(), &type_}};
    KernelArgs args;
    args.inputs = inputs;
    args.outputs = outputs;
    args.workspace = workspace_.data();
    run_(op_, args);
  }

 private:
  static constexpr std::int64_t size = 1024;
  Linear op_{Activation::none, false};
  TensorType type_;
  std::vector<std::byte> x_, w_, y_, workspace_;
  KernelRun run_ = nullptr;
};

}  // namespace

double measure_matrix_peak(Precision precision, Communicator& comm) {
  using Clock = std::chrono::steady_clock;
  Product product(precision);
  product.run();
  comm.barrier("measuring the matrix peak").wait();
  double best = 0;
  const auto end = Clock::now() + std::chrono::milliseconds(300);
  do {
    const auto start = Clock::now();
    product.run();
    best = std::max(best, Product::flops / std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  double negated = -best;
  comm.all_reduce(std::as_writable_bytes(std::span(&negated, 1)), ReduceType::f64, ReduceOp::max,
                  "matrix peak")
      .wait();
  return -negated;
}

}  // namespace muster
