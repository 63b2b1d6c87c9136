// Sums and copies of flat spaces.
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <vector>

#include "tests/model/update/flat_test.hpp"

namespace muster {
namespace {

using testing::count;
using testing::cuts;
using testing::OnDevice;
using testing::singles;

class Sums : public testing::FlatTest {
 protected:
  std::vector<double> block_squares(const std::vector<float>& x) {
    const OnDevice<float> on_device(device(), x);
    const OnDevice<double> sums(device(), (x.size() + flat_block - 1) / flat_block);
    device().run(
        [&](NativeStream stream) { kernels().block_squares(stream, on_device.span(), sums.span()); });
    return sums.values();
  }
};

TEST_P(Sums, squares_are_summed_in_blocks_of_4096) {
  const std::vector<float> x = singles(reference::random_values(count, 2));
  const std::vector<double> sums = block_squares(x);
  for (std::size_t block = 0; block < 4; ++block) {
    double want = 0;
    for (std::size_t i = block * flat_block; i < std::min<std::size_t>(count, (block + 1) * flat_block); ++i)
      want += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    // Squares of f32 are exact in f64; at most 4,096 roundings of the sum.
    EXPECT_NEAR(sums[block], want, 4096 * 0x1p-53 * want) << block;
  }
  for (int threads = 1; threads <= 4; ++threads) {
    set_thread_count(threads);
    std::vector<double> again;
    for (const auto& [begin, end] : cuts)
      for (const double sum : block_squares({x.begin() + begin, x.begin() + end})) again.push_back(sum);
    EXPECT_EQ(again, sums) << threads;
  }
}

TEST_P(Sums, squares_of_the_largest_floats_do_not_overflow_and_nan_shows) {
  std::vector<float> x(flat_block, 3e38f);
  EXPECT_NEAR(block_squares(x)[0] / (4096 * 9e76), 1, 1e-6);
  x[17] = std::nanf("");
  EXPECT_TRUE(std::isnan(block_squares(x)[0]));
}

TEST_P(Sums, sums_and_copies_round_each_element_once) {
  const std::vector<float> a = singles(reference::random_values(count, 3));
  const std::vector<float> b = singles(reference::random_values(count, 4));
  const OnDevice<float> on_device(device(), a), more(device(), b);
  const OnDevice<bf16> halves(device(), count);
  device().run([&](NativeStream stream) {
    kernels().add(stream, on_device.span(), more.span());
    kernels().to_bf16(stream, on_device.span(), halves.span());
  });
  const std::vector<float> sum = on_device.values();
  const std::vector<bf16> rounded = halves.values();
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(sum[i], a[i] + b[i]) << i;
    ASSERT_EQ(rounded[i].bits, bf16(sum[i]).bits) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, Sums, ::testing::ValuesIn(testing::compiled_backends()),
                         [](const auto& kind) { return testing::test_name_of(kind.param); });

}  // namespace
}  // namespace muster
