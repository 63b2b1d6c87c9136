// What the CUDA backend's elementwise kernels refuse.
#include <gtest/gtest.h>
#include <vector>

#include "core/error.hpp"
#include "model/ops/activation.hpp"
#include "model/ops/embedding.hpp"
#include "tests/model/op_table.hpp"

namespace muster {
namespace {

using testing::matrix;
using testing::vector;

// Types without memory: nothing may be launched.
void run(const Op& op, std::vector<TensorType> inputs, TensorType output) {
  std::byte* const nowhere = reinterpret_cast<std::byte*>(std::uintptr_t{16});
  std::vector<TensorView> views;
  for (const TensorType& type : inputs) views.push_back({nowhere, &type});
  const TensorView to{nowhere, &output};
  cuda_kernels().at(op.name()).run(op, {.inputs = views, .outputs = {&to, 1}});
}

// Rows of 3, no whole vectors, just beyond 2^32 elements.
TEST(CudaElementwise, more_items_than_kernels_count_are_refused) {
  constexpr std::int64_t rows = (std::int64_t{1} << 32) / 3 + 1;
  const TensorType wide = matrix(rows, 6, DType::bf16), narrow = matrix(rows, 3, DType::bf16);
  EXPECT_THROW(run(SwiGlu(), {wide}, narrow), UserError);
  EXPECT_THROW(run(SwiGluGradient(), {narrow, wide}, wide), UserError);
  EXPECT_THROW(run(Embedding(DType::bf16), {vector(rows, DType::i32), matrix(5, 3, DType::f32)}, narrow),
               UserError);
}

}  // namespace
}  // namespace muster
