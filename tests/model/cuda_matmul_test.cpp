// Matrix products of the CUDA backend against loops in doubles: every orientation, row strides, types, biases; what
// cuBLASLt has no algorithm for; and that algorithms are chosen once.
#include <cmath>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "model/ops/cuda/matmul.hpp"
#include "model/ops/cuda/matmul_plain.hpp"
#include "tests/model/run_op.hpp"
#include "tests/model/test_device.hpp"
#include "tests/reference/linear.hpp"
#include "tests/reference/values.hpp"

namespace muster {
namespace {

using reference::Values;
using testing::DeviceCopy;
using testing::GuardedMemory;
using testing::TestDevice;
using testing::TestTensor;

struct Case {
  std::int64_t m, n, k;
  DType inputs = DType::f32, output = DType::f32;
  std::int64_t gap = 0;  // elements between the rows of each matrix
  bool a_transposed = false, b_transposed = false, accumulate = false, biased = false;

  std::string describe() const {
    return fmt::format("{} x {} x {}, {} to {}, gap {}{}{}{}{}", m, n, k, name_of(inputs), name_of(output),
                       gap, a_transposed ? ", a transposed" : "", b_transposed ? ", b transposed" : "",
                       accumulate ? ", accumulated" : "", biased ? ", bias" : "");
  }
};

// rows x columns of integers from -4 to 4, of which every product and sum is exact, with `gap` columns behind that
// nothing may read or change.
TestTensor integers(std::int64_t rows, std::int64_t columns, std::int64_t gap, DType type,
                    std::uint64_t seed) {
  const Values inside = reference::random_integers(rows * columns, seed, -4, 4);
  Values values;
  for (std::int64_t row = 0; row < rows; ++row) {
    values.insert(values.end(), inside.begin() + row * columns, inside.begin() + (row + 1) * columns);
    values.insert(values.end(), static_cast<std::size_t>(gap), std::nan(""));
  }
  return TestTensor({{rows, columns + gap}, type}, values);
}

Values inside(const TestTensor& tensor, std::int64_t gap) {
  const Values all = tensor.values();
  const auto stride = static_cast<std::size_t>(tensor.type().columns()),
             width = stride - static_cast<std::size_t>(gap);
  Values values;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (i % stride < width) values.push_back(all[i]);
  return values;
}

class CudaMatmul : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_device({DeviceKind::cuda})) GTEST_SKIP() << "there is no GPU";
    device_ = std::make_unique<TestDevice>(DeviceKind::cuda);
    matmuls_ = std::make_unique<cuda::Matmuls>();
  }

  // c after the product, by cuBLASLt or by the plain kernel.
  TestTensor run(const Case& s, bool plain = false, std::uint64_t seed = 1) {
    TestTensor a = s.a_transposed ? integers(s.k, s.m, s.gap, s.inputs, seed)
                                  : integers(s.m, s.k, s.gap, s.inputs, seed);
    TestTensor b = s.b_transposed ? integers(s.n, s.k, s.gap, s.inputs, seed + 1)
                                  : integers(s.k, s.n, s.gap, s.inputs, seed + 1);
    TestTensor bias({{s.n}, s.output}, reference::random_integers(s.n, seed + 2, -4, 4));
    // What is not accumulated onto starts as NaN.
    TestTensor c = s.accumulate ? integers(s.m, s.n, s.gap, s.output, seed + 3)
                                : TestTensor({{s.m, s.n + s.gap}, s.output});
    GuardedMemory workspace(cuda::matmul_workspace(s.m, s.n));
    std::vector<DeviceCopy> copies;
    const auto copy = [&](GuardedMemory& memory) { return copies.emplace_back(*device_, memory).data(); };
    const cuda::Product product{.inputs = s.inputs,
                                .m = s.m,
                                .n = s.n,
                                .k = s.k,
                                .a = {copy(a.memory()), a.type().columns(), s.a_transposed},
                                .b = {copy(b.memory()), b.type().columns(), s.b_transposed},
                                .c = copy(c.memory()),
                                .output = s.output,
                                .c_stride = s.n + s.gap,
                                .accumulate = s.accumulate,
                                .bias = s.biased ? copy(bias.memory()) : nullptr};
    std::byte* const scratch = copy(workspace);
    device_->run([&](NativeStream stream) {
      plain ? cuda::plain_product(product, stream) : matmuls_->run(product, scratch, stream);
    });
    for (DeviceCopy& each : copies) each.fetch();
    device_->stream().synchronize();
    EXPECT_TRUE(workspace.intact() && c.intact()) << s.describe();

    const Values a_rows = s.a_transposed
                              ? reference::transposed(inside(a, s.gap), static_cast<std::size_t>(s.m))
                              : inside(a, s.gap);
    const Values b_rows = s.b_transposed
                              ? inside(b, s.gap)
                              : reference::transposed(inside(b, s.gap), static_cast<std::size_t>(s.n));
    Values want =
        reference::linear(a_rows, b_rows, s.biased ? bias.values() : Values(), static_cast<std::size_t>(s.k));
    if (s.accumulate) {
      const Values start = reference::random_integers(s.m * s.n, seed + 3, -4, 4);
      for (std::size_t i = 0; i < want.size(); ++i) want[i] += start[i];
    }
    EXPECT_EQ(inside(c, s.gap), reference::rounded(want, s.output)) << s.describe();
    const Values all = c.values();
    for (std::size_t i = 0; i < all.size(); ++i)
      EXPECT_TRUE(static_cast<std::int64_t>(i) % (s.n + s.gap) < s.n || std::isnan(all[i])) << s.describe();
    return c;
  }

  std::unique_ptr<TestDevice> device_;
  std::unique_ptr<cuda::Matmuls> matmuls_;
};

template <class Body>
void for_orientations(Case s, Body&& body) {
  for (const bool a : {false, true})
    for (const bool b : {false, true}) {
      s.a_transposed = a;
      s.b_transposed = b;
      body(s);
    }
}

struct Types {
  DType inputs, output;
};
constexpr Types all_types[] = {
    {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}};
constexpr Case sizes[] = {{1, 1, 1}, {45, 101, 33}, {16, 24, 40}, {130, 70, 200}};

TEST_F(CudaMatmul, multiplies_every_orientation_of_both_matrices) {
  for (const Case& size : sizes)
    for (const Types types : all_types)
      for_orientations({size.m, size.n, size.k, types.inputs, types.output}, [&](const Case& s) { run(s); });
}

TEST_F(CudaMatmul, leaves_alone_what_lies_between_the_rows) {
  for (const std::int64_t gap : {1, 3, 8})
    for (const Types types : all_types)
      for_orientations({45, 24, 33, types.inputs, types.output, gap}, [&](const Case& s) { run(s); });
}

TEST_F(CudaMatmul, adds_to_what_was_there) {
  for (const Case& size : sizes)
    for (const Types types : all_types)
      for_orientations({.m = size.m,
                        .n = size.n,
                        .k = size.k,
                        .inputs = types.inputs,
                        .output = types.output,
                        .accumulate = true},
                       [&](const Case& s) { run(s); });
}

TEST_F(CudaMatmul, adds_a_bias_to_every_row) {
  for (const Case& size : sizes)
    for (const Types types : all_types)
      run({.m = size.m,
           .n = size.n,
           .k = size.k,
           .inputs = types.inputs,
           .output = types.output,
           .b_transposed = true,
           .biased = true});
}

TEST_F(CudaMatmul, plain_kernel_gives_the_same) {
  for (const Types types : all_types)
    for (const bool accumulate : {false, true})
      for_orientations({.m = 66,
                        .n = 80,
                        .k = 40,
                        .inputs = types.inputs,
                        .output = types.output,
                        .gap = 8,
                        .accumulate = accumulate,
                        .biased = !accumulate},
                       [&](const Case& s) { EXPECT_TRUE(run(s, true).same_bits(run(s))) << s.describe(); });
}

TEST_F(CudaMatmul, chooses_once_for_each_problem) {
  const Case s{16, 24, 40, DType::bf16, DType::f32};
  run(s);
  EXPECT_EQ(matmuls_->problems(), 1u);
  run(s, false, 7);
  Case added = s;
  added.accumulate = true;
  run(added);
  EXPECT_EQ(matmuls_->problems(), 1u)
      << "other memory of the same alignment, and accumulation, are no new problem";

  std::vector<Case> others(6, s);
  others[0].m = 17;
  others[1].gap = 8;
  others[2].a_transposed = true;
  others[3].biased = true;
  others[4].output = DType::bf16;
  others[5].inputs = DType::f32;
  for (std::size_t i = 0; i < others.size(); ++i) {
    run(others[i]);
    EXPECT_EQ(matmuls_->problems(), i + 2) << others[i].describe();
  }
}

// From a product's second row on, memory is less aligned than where its algorithm was chosen.
TEST_F(CudaMatmul, chooses_anew_for_memory_of_another_alignment) {
  constexpr std::int64_t n = 12, k = 4;
  const std::vector<float> ones(static_cast<std::size_t>(n * n), 1.0f);
  const testing::OnDevice<float> a(*device_, ones), b(*device_, ones), c(*device_, ones);
  testing::OnDevice<std::byte> workspace(*device_, cuda::matmul_workspace(n, n));
  std::size_t problems = 0;
  for (const std::int64_t offset : {0, 1, 2, 4}) {
    device_->run([&](NativeStream stream) {
      matmuls_->run({.m = 2,
                     .n = n,
                     .k = k,
                     .a = {a.data() + offset, k},
                     .b = {b.data(), n},
                     .c = c.data(),
                     .c_stride = n},
                    workspace.data(), stream);
    });
    EXPECT_EQ(c.values()[0], static_cast<float>(k));
    EXPECT_EQ(matmuls_->problems(), ++problems) << "offset " << offset;
  }
}

TEST_F(CudaMatmul, refuses_a_bias_beside_accumulation) {
  float any = 0;
  const cuda::Product product{.m = 1,
                              .n = 1,
                              .k = 1,
                              .a = {&any, 1},
                              .b = {&any, 1},
                              .c = &any,
                              .c_stride = 1,
                              .accumulate = true,
                              .bias = &any};
  EXPECT_THROW(matmuls_->run(product, nullptr, nullptr), Defect);
}

#ifdef MUSTER_CUDA_ON_HOST
// A GPU would fail when it comes to the product, and say less.
TEST_F(CudaMatmul, says_where_the_library_refused) {
  float of_the_host[16] = {};
  testing::OnDevice<std::byte> workspace(*device_, cuda::matmul_workspace(4, 4));
  try {
    device_->run([&](NativeStream stream) {
      matmuls_->run({.m = 4,
                     .n = 4,
                     .k = 4,
                     .a = {of_the_host, 4},
                     .b = {of_the_host, 4},
                     .c = of_the_host,
                     .c_stride = 4},
                    workspace.data(), stream);
    });
    FAIL() << "host memory was taken";
  } catch (const Defect& defect) {
    EXPECT_NE(std::string(defect.what()).find("multiplying matrices: an invalid value"), std::string::npos)
        << defect.what();
  }
}
#endif

TEST(CudaMatmulWorkspace, holds_the_partial_sums_of_a_divided_product_within_its_bounds) {
  EXPECT_EQ(cuda::matmul_workspace(1, 1), 256u << 10);
  EXPECT_EQ(cuda::matmul_workspace(128, 256), 16u * 128 * 256 * 4);
  EXPECT_EQ(cuda::matmul_workspace(8192, 50304), 32u << 20);
  for (const std::int64_t m : {1, 7, 100, 129, 1000}) EXPECT_EQ(cuda::matmul_workspace(m, 77) % 4096, 0u);
}

}  // namespace
}  // namespace muster
