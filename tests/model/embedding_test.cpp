// The order in which the embedding's gradient adds rows, on every backend.
#include "model/ops/embedding.hpp"

#include <gtest/gtest.h>
#include <vector>

#include "tests/model/run_op.hpp"
#include "tests/reference/values.hpp"

namespace muster::testing {
namespace {

class EmbeddingOrder : public ::testing::TestWithParam<TestBackend> {};

TEST_P(EmbeddingOrder, is_that_of_positions_to_the_last_bit) {
  if (!has_device(GetParam())) GTEST_SKIP() << "no GPU is visible";
  TestDevice device(GetParam());
  const std::int64_t positions = 3000, rows = 37, width = 12;
  const reference::Values ids = reference::random_integers(positions, 1, 0, rows - 1);
  std::vector<TestTensor> inputs = {
      TestTensor({{positions}, DType::i32}, ids),
      TestTensor({{positions, width}, DType::f32}, reference::random_values(positions * width, 2))};
  const reference::Values dy = inputs[1].values();

  std::vector<float> want(static_cast<std::size_t>(rows * width));
  for (std::size_t n = 0; n < ids.size(); ++n)
    for (std::size_t c = 0; c < width; ++c)
      want[static_cast<std::size_t>(ids[n]) * width + c] += static_cast<float>(dy[n * width + c]);
  const reference::Values got = run_op(device, EmbeddingGradient(rows), inputs)[0].values();
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_EQ(static_cast<float>(got[i]), want[i]) << i;
}

INSTANTIATE_TEST_SUITE_P(Devices, EmbeddingOrder, ::testing::ValuesIn(compiled_backends()),
                         [](const auto& kind) { return test_name_of(kind.param); });

}  // namespace
}  // namespace muster::testing
