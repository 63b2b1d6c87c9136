#include "trainer/machine/large_product.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/parallel.hpp"

namespace muster {

LargeProduct::LargeProduct(Precision precision, std::int64_t size, Machine& machine)
    : machine_(machine),
      size_(size),
      type_{{size_, size_}, precision == Precision::bf16 ? DType::bf16 : DType::f32},
      kernel_(machine.backend().kernels.at(op_.name())),
      x_(account_, MemoryKind::activations, type_.bytes(), machine.device().memory()),
      w_(account_, MemoryKind::activations, type_.bytes(), machine.device().memory()),
      y_(account_, MemoryKind::activations, type_.bytes(), machine.device().memory()) {
  std::vector<std::byte> values(type_.bytes());
  for (std::int64_t i = 0; i < type_.elements(); ++i) {
    const float value = static_cast<float>((i * 2654435761u >> 8) & 0xffff) * 0x1p-16f - 0.5f;
    if (precision == Precision::bf16)
      reinterpret_cast<bf16*>(values.data())[i] = bf16(value);
    else
      reinterpret_cast<float*>(values.data())[i] = value;
  }
  machine.stream().copy(x_.data(), values.data(), values.size());
  machine.stream().copy(w_.data(), values.data(), values.size());
  machine.stream().synchronize();
  const std::vector<TensorType> inputs = {type_, type_, {}}, outputs = {type_};
  if (kernel_.workspace)
    workspace_ = Buffer(account_, MemoryKind::activations,
                        kernel_.workspace(op_, inputs, outputs, thread_count()), machine.device().memory());
}

double LargeProduct::run() {
  const auto begin = machine_.stream().timestamp();
  machine_.stream().enqueue([this](NativeStream native) {
    const std::vector<TensorView> inputs = {{x_.data(), &type_}, {w_.data(), &type_}, {}},
                                  outputs = {{y_.data(), &type_}};
    KernelArgs args;
    args.inputs = inputs;
    args.outputs = outputs;
    args.workspace = workspace_.data();
    args.stream = native;
    args.context = machine_.backend().context.get();
    kernel_.run(op_, args);
  });
  const auto end = machine_.stream().timestamp();
  machine_.stream().synchronize();
  return flops() / (end() - begin());
}

double LargeProduct::flops() const { return 2.0 * std::pow(static_cast<double>(size_), 3); }

std::unique_ptr<LargeProduct> large_product(Precision precision, Machine& machine) {
  constexpr std::int64_t smallest = 512, largest = 8192;
  for (std::int64_t size = smallest;; size *= 2) {
    auto product = std::make_unique<LargeProduct>(precision, size, machine);
    double flops = 0;
    for (int run = 0; run < 3; ++run) flops = std::max(flops, product->run());
    if (size == largest || product->flops() / flops > 5e-3) return product;
  }
}

}  // namespace muster
