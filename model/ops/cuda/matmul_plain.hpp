// The matrix product of any types, strides and alignments: for what cuBLASLt has no algorithm, which is bf16 with
// rows of odd length. Models have none such, so it is plain and not fast.
#pragma once

#include "model/ops/cuda/matmul.hpp"

namespace muster::cuda {

void plain_product(const Product& product, NativeStream stream);

}  // namespace muster::cuda
