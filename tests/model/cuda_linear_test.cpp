// The head and the norms of the CUDA backend where shapes decide how the work is cut: several chunks of rows, rows of
// logits longer than shared memory; and what a GPU cannot throw.
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <vector>

#include "model/ops/cross_entropy.hpp"
#include "model/ops/cuda/column_sums.hpp"
#include "model/ops/cuda/linear_layout.hpp"
#include "model/ops/cuda/norm_layout.hpp"
#include "model/ops/norm.hpp"
#include "tests/model/op_table.hpp"
#include "tests/model/run_op.hpp"
#include "tests/model/test_device.hpp"
#include "tests/reference/values.hpp"

namespace muster {
namespace {

using reference::Values;
using testing::matrix;
using testing::run_op;
using testing::RunOptions;
using testing::TestDevice;
using testing::TestTensor;
using testing::vector;

class CudaOps : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_device({DeviceKind::cuda})) GTEST_SKIP() << "there is no GPU";
    device_ = std::make_unique<TestDevice>(DeviceKind::cuda);
  }
  std::unique_ptr<TestDevice> device_;
};

std::vector<TestTensor> head_inputs(std::int64_t n, std::int64_t c, std::int64_t classes, std::int64_t table,
                                    DType type) {
  std::vector<TestTensor> inputs;
  inputs.emplace_back(matrix(n, c, type), reference::random_values(n * c, 1));
  inputs.emplace_back(matrix(table, c, type), reference::random_values(table * c, 2));
  Values targets = reference::random_integers(n, 3, 0, static_cast<int>(classes) - 1);
  for (std::size_t i = 0; i < targets.size(); i += 3) targets[i] = -1;
  inputs.emplace_back(vector(n, DType::i32), targets);
  return inputs;
}

double largest_of(const Values& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// Both round logits and their gradients to the type, and sum in f32, in another order: as many roundings as the sum has
// terms are safe. (Over a table of 151,936 rows most of dx's terms are below half a unit of their sum's last place.)
void expect_like_the_cpu(TestDevice& device, std::int64_t n, std::int64_t c, std::int64_t classes,
                         std::int64_t table, DType type) {
  std::vector<TestTensor> inputs = head_inputs(n, c, classes, table, type);
  const LinearCrossEntropy op(classes, true);
  const std::vector<TensorType> types = {vector(1, DType::f64), matrix(n, c, type),
                                         matrix(table, c, DType::f32)};
  const auto want = run_op(op, inputs, {}, types), got = run_op(device, op, inputs, {}, types);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const Values values = got[i].values(), others = want[i].values();
    const double terms = static_cast<double>(std::max<std::int64_t>(64, i == 1 ? table : n));
    const double tolerance = (type == DType::bf16 ? 0x1p-7 : 0x1p-24 * terms) * largest_of(others);
    for (std::size_t k = 0; k < values.size(); ++k)
      ASSERT_NEAR(values[k], others[k], tolerance)
          << "output " << i << ", element " << k << ", " << name_of(type);
  }
  EXPECT_TRUE(run_op(device, LinearCrossEntropy(classes, false), inputs)[0].same_bits(got[0]))
      << "evaluation";
}

TEST_F(CudaOps, head_of_several_chunks_equals_the_cpu) {
  constexpr std::int64_t n = cuda::HeadLayout::most_rows + 9;
  for (const DType type : {DType::f32, DType::bf16}) expect_like_the_cpu(*device_, n, 8, 11, 16, type);
}

// 304 KB of bf16 logits, 608 KB of f32: neither fits into the shared memory of a block.
TEST_F(CudaOps, head_of_a_wide_vocabulary_equals_the_cpu) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_like_the_cpu(*device_, 2, 8, 151'665, 151'936, type);
}

TEST_F(CudaOps, loss_is_nan_for_a_target_beyond_the_classes) {
  std::vector<TestTensor> inputs = head_inputs(3, 8, 50, 128, DType::f32);
  const Values beyond = {1, 50, 3};
  inputs[2].fill(beyond);
  EXPECT_TRUE(std::isnan(run_op(*device_, LinearCrossEntropy(50, false), inputs)[0].values()[0]));
}

TEST_F(CudaOps, loss_is_nan_where_an_input_is) {
  std::vector<TestTensor> inputs = head_inputs(2, 8, 50, 128, DType::bf16);
  inputs[2].fill(Values{1, 2});
  Values x = inputs[0].values();
  x[9] = std::numeric_limits<double>::quiet_NaN();
  inputs[0].fill(x);
  EXPECT_TRUE(std::isnan(run_op(*device_, LinearCrossEntropy(50, false), inputs)[0].values()[0]));
}

// A class that is ruled out: probability zero, and no NaN.
TEST_F(CudaOps, head_takes_logits_of_minus_infinity) {
  std::vector<TestTensor> inputs = {
      TestTensor(matrix(1, 1, DType::f32), Values{1}),
      TestTensor(matrix(40, 1, DType::f32), Values(40, -std::numeric_limits<double>::infinity())),
      TestTensor(vector(1, DType::i32), Values{37})};
  Values w = inputs[1].values();
  w[37] = w[2] = 0.5;
  inputs[1].fill(w);
  EXPECT_NEAR(run_op(*device_, LinearCrossEntropy(40, false), inputs)[0].values()[0], std::log(2), 0x1p-22);
}

TEST_F(CudaOps, renormalize_gives_the_bits_of_residual_norm) {
  for (const NormKind kind : {NormKind::layer, NormKind::rms})
    for (const std::int64_t c : {33, 768, 1028, 2052, 8196})
      for (const DType type : {DType::f32, DType::bf16}) {
        const bool biased = kind == NormKind::layer;
        std::vector<TestTensor> inputs;
        inputs.emplace_back(matrix(5, c, DType::f32), reference::random_values(5 * c, 1));
        inputs.emplace_back(matrix(5, c, type), reference::random_values(5 * c, 2));
        inputs.emplace_back(vector(c), reference::random_values(c, 3));
        inputs.push_back(biased ? TestTensor(vector(c), reference::random_values(c, 4)) : TestTensor());
        const auto forward = run_op(*device_, ResidualNorm(kind, 1e-5f, type), inputs);
        std::vector<TestTensor> again = {forward[2], forward[1], inputs[2], inputs[3]};
        EXPECT_TRUE(run_op(*device_, Renormalize(kind, type), again)[0].same_bits(forward[0]))
            << c << " " << name_of(type);
      }
}

TEST(CudaLayouts, chunks_of_the_head_are_even_and_within_a_gibibyte) {
  const auto layout = [](std::int64_t n, std::int64_t table) {
    const LinearCrossEntropy op(table, true);
    return cuda::HeadLayout(op, matrix(n, 64, DType::bf16), matrix(table, 64, DType::bf16));
  };
  EXPECT_EQ(layout(100, 128).rows, 100);
  EXPECT_EQ(layout(8192, 50304).rows, 8192);
  EXPECT_EQ(layout(8193, 50304).rows, 4352) << "two chunks of 17 tiles or less";
  EXPECT_EQ(layout(65536, 50304).rows, 8192);
  const cuda::HeadLayout wide = layout(65536, 151'936);
  EXPECT_LE(wide.rows * wide.stride * 2, std::int64_t{1} << 30);
  EXPECT_GT(wide.rows, 3000);
  EXPECT_EQ(layout(65536, 4'000'000).rows, cuda::HeadLayout::fewest_rows) << "a floor, whatever it takes";
}

TEST(CudaLayouts, blocks_of_rows_cover_all_rows_and_stay_few) {
  for (const std::int64_t rows : {1, 7, 8, 63, 64, 65, 4096, 16384, 100'000}) {
    EXPECT_GE(cuda::column_sum_blocks(rows) * cuda::column_sum_rows(rows), rows);
    EXPECT_LE(cuda::column_sum_blocks(rows), 256);
    for (const std::int64_t columns : {1, 33, 768, 2048, 8192}) {
      EXPECT_GE(cuda::norm_gradient_blocks(rows, columns) * cuda::norm_gradient_rows(rows, columns), rows);
      EXPECT_LE(cuda::norm_gradient_blocks(rows, columns), 2048);
    }
  }
}

TEST(CudaLayouts, threads_of_a_norm_own_all_columns) {
  for (const std::int64_t columns :
       {1, 31, 768, 1024, 1028, 2048, 2052, 4097, 8192, 8196, 16384, 16388, 32768}) {
    const cuda::NormCut cut = cuda::NormCut::of(columns, columns % 4 == 0);
    EXPECT_GE(std::int64_t{cut.threads} * cut.groups * cut.width, columns);
    EXPECT_LE(cut.threads, 512);
    EXPECT_EQ(cut.threads % 32, 0);
  }
}

}  // namespace
}  // namespace muster
