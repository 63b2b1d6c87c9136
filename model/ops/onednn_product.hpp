// Products of single tiles by oneDNN, for instruction sets on which matmul.cpp has no kernels of its own
// (AMX). The only room that knows oneDNN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "model/ops/cpu/matmul_types.hpp"

namespace muster::cpu {

// C (+)= A B for one tile on the calling thread alone: oneDNN's own threads would change the bits of a sum.
// C is f32. Running it from several threads at once is safe, each with its own scratchpad.
class OneDnnProduct {
 public:
  // Only the strides of a and b are read. Throws Defect when oneDNN cannot compute it.
  OneDnnProduct(DType type, const MatmulShape& tile, const MatrixView& a, const MatrixView& b,
                std::int64_t c_stride, bool add);
  ~OneDnnProduct();
  OneDnnProduct(OneDnnProduct&&) noexcept;

  std::uint64_t scratchpad_bytes() const;
  void run(const void* a, const void* b, float* c, std::byte* scratchpad) const;

 private:
  struct Primitive;
  std::unique_ptr<Primitive> primitive_;
};

}  // namespace muster::cpu
