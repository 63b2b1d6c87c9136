// What the tests of kernels over flat spaces share: a range that is no whole number of blocks, and ways to cut it.
#pragma once

#include <gtest/gtest.h>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/parallel.hpp"
#include "model/update/flat_kernels.hpp"
#include "tests/model/test_device.hpp"
#include "tests/reference/values.hpp"

namespace muster::testing {

inline std::vector<float> singles(const reference::Values& values) {
  std::vector<float> singles;
  for (const double value : values) singles.push_back(static_cast<float>(value));
  return singles;
}

// Three blocks and a rest that is no whole vector.
inline constexpr std::int64_t count = 3 * flat_block + 37;

// Cuts of [0, count) at multiples of a block.
inline constexpr std::pair<std::int64_t, std::int64_t> cuts[] = {
    {0, flat_block}, {flat_block, 3 * flat_block}, {3 * flat_block, count}};

template <class T>
std::span<T> part(std::span<T> all, std::pair<std::int64_t, std::int64_t> cut) {
  return all.subspan(static_cast<std::size_t>(cut.first), static_cast<std::size_t>(cut.second - cut.first));
}

// On each backend, with its kernels over flat spaces.
class FlatTest : public ::testing::TestWithParam<TestBackend> {
 protected:
  void SetUp() override {
    if (!has_device(GetParam())) GTEST_SKIP() << "no GPU is visible";
    device_.emplace(GetParam());
  }
  ~FlatTest() override { set_thread_count(threads_); }

  TestDevice& device() { return *device_; }
  const FlatKernels& kernels() { return device_->backend().flat; }

 private:
  int threads_ = thread_count();
  std::optional<TestDevice> device_;
};

}  // namespace muster::testing
