// A product of matrices as large as those of a Transformer's layers: how fast a GPU's library multiplies.
#pragma once

#include <cstdint>
#include <memory>

#include "model/graph/precision.hpp"
#include "model/ops/kernel.hpp"
#include "model/ops/linear.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

// Its data are not all zeros: zeros run faster.
class LargeProduct {
 public:
  LargeProduct(Precision precision, std::int64_t size, Machine& machine);

  double run();  // FLOP/s of one run
  double flops() const;

 private:
  Machine& machine_;
  MemoryAccount account_;  // of its own: gone before a run takes its memory
  std::int64_t size_;
  Linear op_{Activation::none, false};
  TensorType type_;
  Kernel kernel_;
  Buffer x_, w_, y_, workspace_;
};

// Large products are faster, up to a size that depends on the device: one that takes 5 ms.
std::unique_ptr<LargeProduct> large_product(Precision precision, Machine& machine);

}  // namespace muster
