// What sol divides by: on CPUs nothing that computes with them is faster.
#include "trainer/machine/matrix_peak.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <thread>

#include "comm/threads/ranks.hpp"
#include "core/arithmetic_rate.hpp"
#include "core/parallel.hpp"
#include "trainer/config/config.hpp"
#include "trainer/machine/large_product.hpp"

namespace muster {
namespace {

// Without what other runs have measured.
class MatrixPeakTest : public testing::Test {
 protected:
  MatrixPeakTest() {
    std::filesystem::create_directories(cache_);
    setenv("XDG_CACHE_HOME", cache_.c_str(), 1);
  }
  ~MatrixPeakTest() override {
    set_thread_count(threads_);
    before_.empty() ? unsetenv("XDG_CACHE_HOME") : setenv("XDG_CACHE_HOME", before_.c_str(), 1);
    std::filesystem::remove_all(cache_);
  }

  MatrixPeak measure(Precision precision = Precision::f32, int ranks = 1) {
    MatrixPeak peak;
    run_ranks(ranks, [&](Communicator& comm) {
      set_thread_count(threads_);
      MemoryAccount account;
      Machine machine(cpu_device(), account);
      const MatrixPeak mine = measure_matrix_peak(precision, comm, machine);
      if (comm.rank() == 0) peak = mine;
    });
    return peak;
  }

  const std::filesystem::path cache_ =
      std::filesystem::temp_directory_path() / fmt::format("muster-peak-{}", getpid());
  const std::string before_ = std::getenv("XDG_CACHE_HOME") != nullptr ? std::getenv("XDG_CACHE_HOME") : "";
  const int threads_ = thread_count();
};

TEST_F(MatrixPeakTest, sol_is_the_least_time_of_the_products_over_that_of_the_step) {
  // Two ranks that reach 1 GFLOP/s each need 2 s for 4 GFLOP.
  EXPECT_DOUBLE_EQ(speed_of_light(4e9, 1e9, 2, 2.0), 1.0);
  EXPECT_DOUBLE_EQ(speed_of_light(4e9, 1e9, 2, 8.0), 0.25);
}

// A product is the fastest of all that a step does.
TEST_F(MatrixPeakTest, no_product_is_faster) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const MatrixPeak peak = measure(precision);
    MemoryAccount account;
    Machine machine(cpu_device(), account);
    const std::unique_ptr<LargeProduct> product = large_product(precision, machine);
    double best = 0;
    for (int run = 0; run < 20; ++run) best = std::max(best, product->run());
    EXPECT_LT(speed_of_light(product->flops(), peak.flops_per_s, 1, product->flops() / best), 1)
        << spelling(precision);
  }
}

TEST_F(MatrixPeakTest, ranks_that_share_the_cores_have_what_one_has_that_uses_them_all) {
  const double one = measure().flops_per_s;
  EXPECT_NEAR(2 * measure(Precision::f32, 2).flops_per_s, one, 0.3 * one);
  EXPECT_NEAR(3 * measure(Precision::f32, 3).flops_per_s, one, 0.3 * one);
}

TEST_F(MatrixPeakTest, what_the_host_has_reached_before_counts) {
  const double first = measure().flops_per_s;
  for (int again = 0; again < 3; ++again) EXPECT_GE(measure().flops_per_s, first);
}

TEST_F(MatrixPeakTest, those_who_use_the_cores_are_named_and_take_nothing_off_the_peak) {
  const double alone = measure().flops_per_s;
  std::filesystem::remove_all(cache_);
  std::atomic<bool> stop = false;
  std::vector<std::thread> others;
  for (int i = 0; i < 3 * threads_; ++i)
    others.emplace_back([&] {
      while (!stop) {
      }
    });
  const MatrixPeak peak = measure();
  stop = true;
  for (std::thread& other : others) other.join();
  EXPECT_TRUE(peak.remark.starts_with("others use the cores: this process got ")) << peak.remark;
  EXPECT_NE(peak.remark.find(fmt::format("% of the {} it asked for", threads_)), std::string::npos);
  EXPECT_GT(peak.flops_per_s, 0.7 * alone);
}

}  // namespace
}  // namespace muster
