// Linear layers and the cross-entropy head on the CPU against loops in doubles, on shapes that fill no tile.
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "model/ops/cross_entropy.hpp"
#include "model/ops/linear.hpp"
#include "tests/model/product.hpp"
#include "tests/model/run_op.hpp"

namespace muster {
namespace {

using testing::expect_close;
using testing::multiply;
using testing::numbers;
using testing::Product;
using testing::rounding;
using testing::run_op;
using testing::RunOptions;
using testing::sum_tolerance;
using testing::tensor;
using testing::TestTensor;

struct LinearShape {
  std::int64_t n, k, o;
};

// Nothing fills a tile; one element; one row; a depth of several blocks; many tiles.
const LinearShape shapes[] = {{1, 1, 1},   {1, 768, 50},   {3, 17, 5},      {8, 16, 48},    {37, 33, 97},
                              {9, 31, 16}, {130, 801, 49}, {33, 1543, 101}, {300, 65, 401}, {17, 2, 1031}};

class LinearKernels : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, LinearKernels, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& parameter) { return std::string(name_of(parameter.param)); });

std::string describe(const LinearShape& s) {
  return std::to_string(s.n) + " x " + std::to_string(s.k) + " x " + std::to_string(s.o);
}

TEST_P(LinearKernels, forward_equals_the_formula) {
  for (const LinearShape& s : shapes) {
    std::vector<TestTensor> inputs;
    inputs.push_back(tensor(s.n, s.k, GetParam(), 1));
    inputs.push_back(tensor(s.o, s.k, GetParam(), 2));
    Product z = multiply(inputs[0].values(), inputs[1].values(), s.n, s.o, s.k, false, true);
    const auto plain = run_op(Linear(Activation::none, false), inputs);
    expect_close(plain[0].values(), z.value, sum_tolerance(z, s.k, GetParam()), describe(s));

    inputs.emplace_back(TensorType{{s.o}, DType::f32}, numbers(s.o, 3));
    const std::vector<double> bias = inputs[2].values();
    for (std::size_t i = 0; i < z.value.size(); ++i) {
      z.value[i] += bias[i % bias.size()];
      z.magnitude[i] += std::abs(bias[i % bias.size()]);
    }
    const auto tolerance = sum_tolerance(z, s.k + 1, GetParam());
    const auto biased = run_op(Linear(Activation::none, false), inputs);
    expect_close(biased[0].values(), z.value, tolerance, describe(s) + " with bias");

    // GELU is checked on the z that is kept; its slope is at most 1.13, its arithmetic errs by 8 roundings of
    // f32.
    const auto activated = run_op(Linear(Activation::gelu, true), inputs);
    expect_close(activated[1].values(), z.value, tolerance, describe(s) + " before GELU");
    std::vector<double> gelu = activated[1].values(), gelu_tolerance(gelu.size());
    for (std::size_t i = 0; i < gelu.size(); ++i) {
      const double v = gelu[i];
      gelu[i] = v / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
      gelu_tolerance[i] = rounding(GetParam()) * std::abs(gelu[i]) + 8 * 0x1p-24 * std::abs(v);
    }
    expect_close(activated[0].values(), gelu, gelu_tolerance, describe(s) + " after GELU");
    EXPECT_TRUE(run_op(Linear(Activation::gelu, false), inputs)[0].same_bits(activated[0]));
  }
}

TEST_P(LinearKernels, input_gradient_equals_the_formula) {
  for (const LinearShape& s : shapes) {
    std::vector<TestTensor> inputs;
    inputs.push_back(tensor(s.n, s.o, GetParam(), 4));
    inputs.push_back(tensor(s.o, s.k, GetParam(), 5));
    const Product dx = multiply(inputs[0].values(), inputs[1].values(), s.n, s.k, s.o, false, false);
    const auto got = run_op(LinearInputGradient(), inputs);
    expect_close(got[0].values(), dx.value, sum_tolerance(dx, s.o, GetParam()), describe(s));
  }
}

TEST_P(LinearKernels, weight_gradient_overwrites_or_adds) {
  for (const LinearShape& s : shapes) {
    std::vector<TestTensor> inputs;
    inputs.push_back(tensor(s.n, s.o, GetParam(), 6));
    inputs.push_back(tensor(s.n, s.k, GetParam(), 7));
    const Product dw = multiply(inputs[0].values(), inputs[1].values(), s.o, s.k, s.n, true, false);
    const std::vector<double> ones(static_cast<std::size_t>(s.n), 1.0);
    const Product dbias = multiply(ones, inputs[0].values(), 1, s.o, s.n, false, false);
    const LinearWeightGradient op(true);
    const auto fresh = run_op(op, inputs);
    expect_close(fresh[0].values(), dw.value, sum_tolerance(dw, s.n, DType::f32), describe(s) + " dw");
    expect_close(fresh[1].values(), dbias.value, sum_tolerance(dbias, s.n, DType::f32),
                 describe(s) + " dbias");
    EXPECT_TRUE(run_op(LinearWeightGradient(false), inputs)[0].same_bits(fresh[0]));

    RunOptions options;
    options.accumulate = true;
    options.start = {std::vector<double>(dw.value.size(), 5.0),
                     std::vector<double>(dbias.value.size(), -3.0)};
    const auto added = run_op(op, inputs, options);
    const auto plus = [](Product product, double start) {
      for (double& value : product.value) value += start;
      for (double& magnitude : product.magnitude) magnitude += std::abs(start);
      return product;
    };
    const Product dw_sum = plus(dw, 5.0), dbias_sum = plus(dbias, -3.0);
    expect_close(added[0].values(), dw_sum.value, sum_tolerance(dw_sum, s.n + 1, DType::f32),
                 describe(s) + " dw +=");
    expect_close(added[1].values(), dbias_sum.value, sum_tolerance(dbias_sum, s.n + 1, DType::f32),
                 describe(s) + " dbias +=");
  }
}

TEST_P(LinearKernels, bits_do_not_depend_on_threads) {
  for (const LinearShape& s : {LinearShape{513, 801, 770}, LinearShape{33, 1543, 101}}) {
    std::vector<TestTensor> forward, backward, weights;
    forward.push_back(tensor(s.n, s.k, GetParam(), 1));
    forward.push_back(tensor(s.o, s.k, GetParam(), 2));
    backward.push_back(tensor(s.n, s.o, GetParam(), 3));
    backward.push_back(tensor(s.o, s.k, GetParam(), 4));
    weights.push_back(tensor(s.n, s.o, GetParam(), 3));
    weights.push_back(tensor(s.n, s.k, GetParam(), 1));
    const auto run = [&](int threads) {
      RunOptions options;
      options.threads = threads;
      auto all = run_op(Linear(Activation::gelu, true), forward, options);
      for (auto& output : run_op(LinearInputGradient(), backward, options)) all.push_back(output);
      for (auto& output : run_op(LinearWeightGradient(true), weights, options)) all.push_back(output);
      return all;
    };
    const auto one = run(1);
    for (const int threads : {2, 3, 4, 8}) {
      const auto some = run(threads);
      for (std::size_t i = 0; i < one.size(); ++i)
        EXPECT_TRUE(some[i].same_bits(one[i]))
            << describe(s) << ", output " << i << ", " << threads << " threads";
    }
  }
}

// The head, in doubles, from the inputs as they were rounded.
struct Head {
  std::int64_t n, width, classes, padded;
  double loss = 0;
  std::vector<double> dx, dw, dx_tolerance, dw_tolerance;
  double loss_tolerance = 0;

  Head(const std::vector<double>& x, const std::vector<double>& w, const std::vector<std::int32_t>& targets,
       std::int64_t classes_in_use, std::int64_t rows, DType type)
      : n(static_cast<std::int64_t>(targets.size())),
        width(static_cast<std::int64_t>(x.size()) / n),
        classes(classes_in_use),
        padded(rows),
        dx(x.size()),
        dw(w.size()),
        dx_tolerance(x.size(), 1e-30),
        dw_tolerance(w.size(), 1e-30) {
    const Product logits = multiply(x, w, n, padded, width, false, true);
    for (std::int64_t row = 0; row < n; ++row) {
      const std::int32_t target = targets[static_cast<std::size_t>(row)];
      if (target < 0) continue;
      const double* z = &logits.value[static_cast<std::size_t>(row * padded)];
      const double* magnitude = &logits.magnitude[static_cast<std::size_t>(row * padded)];
      double total = 0, off = 0;
      for (std::int64_t v = 0; v < classes; ++v) {
        total += std::exp(z[v]);
        // A logit errs by its chain and its rounding.
        off = std::max(off,
                       static_cast<double>(width) * 0x1p-24 * magnitude[v] + rounding(type) * std::abs(z[v]));
      }
      loss += std::log(total) - z[target];
      // log-sum-exp and the target's logit each err by at most `off`; exp and the sums by 2^-20.
      loss_tolerance += 2 * off + 0x1p-20;
      for (std::int64_t v = 0; v < classes; ++v) {
        const double p = std::exp(z[v]) / total, d = p - (v == target ? 1.0 : 0.0);
        const double d_off = p * (std::expm1(2 * off) + 0x1p-20) + rounding(type) * std::abs(d) + 0x1p-24;
        for (std::int64_t c = 0; c < width; ++c) {
          const auto at_x = static_cast<std::size_t>(row * width + c),
                     at_w = static_cast<std::size_t>(v * width + c);
          dx[at_x] += d * w[at_w];
          dw[at_w] += d * x[at_x];
          const double chain = 0x1p-24 * static_cast<double>(std::max(n, classes)) * std::abs(d);
          dx_tolerance[at_x] += (d_off + chain) * std::abs(w[at_w]);
          dw_tolerance[at_w] += (d_off + chain) * std::abs(x[at_x]);
        }
      }
    }
    for (std::size_t i = 0; i < dx.size(); ++i) dx_tolerance[i] += rounding(type) * std::abs(dx[i]);
  }
};

struct HeadCase {
  std::int64_t n, width, classes, padded;
};

std::vector<TestTensor> head_inputs(const HeadCase& s, DType type, const std::vector<std::int32_t>& targets) {
  std::vector<TestTensor> inputs;
  inputs.push_back(tensor(s.n, s.width, type, 8));
  inputs.push_back(tensor(s.padded, s.width, type, 9));
  inputs.emplace_back(TensorType{{s.n}, DType::i32}, std::vector<double>(targets.begin(), targets.end()));
  return inputs;
}

std::vector<std::int32_t> some_targets(const HeadCase& s) {
  std::vector<std::int32_t> targets;
  for (std::int64_t i = 0; i < s.n; ++i)
    targets.push_back(i % 3 == 1 ? -1 : static_cast<std::int32_t>((i * 7919) % s.classes));
  return targets;
}

std::vector<TensorType> training_outputs(const HeadCase& s, DType type) {
  return {{{1}, DType::f64}, {{s.n, s.width}, type}, {{s.padded, s.width}, DType::f32}};
}

TEST_P(LinearKernels, cross_entropy_head_equals_the_formula) {
  // The last has rows beyond a chunk; classes and rows of the table differ but in one.
  for (const HeadCase& s : {HeadCase{1, 5, 7, 128}, HeadCase{37, 33, 257, 384}, HeadCase{5, 16, 128, 128},
                            HeadCase{9, 24, 2500, 2560}, HeadCase{1030, 8, 61, 128}}) {
    const std::vector<std::int32_t> targets = some_targets(s);
    auto inputs = head_inputs(s, GetParam(), targets);
    const Head expected(inputs[0].values(), inputs[1].values(), targets, s.classes, s.padded, GetParam());
    const std::string what = std::to_string(s.n) + " rows, " + std::to_string(s.classes) + " classes";

    const auto got = run_op(LinearCrossEntropy(s.classes, true), inputs, {}, training_outputs(s, GetParam()));
    expect_close(got[0].values(), {expected.loss}, {expected.loss_tolerance}, what + ", loss");
    expect_close(got[1].values(), expected.dx, expected.dx_tolerance, what + ", dx");
    expect_close(got[2].values(), expected.dw, expected.dw_tolerance, what + ", dw");
    for (std::int64_t i = s.classes * s.width; i < s.padded * s.width; ++i)
      ASSERT_EQ(got[2].values()[static_cast<std::size_t>(i)], 0.0) << what << ", padding";
    EXPECT_TRUE(run_op(LinearCrossEntropy(s.classes, false), inputs)[0].same_bits(got[0]))
        << what << ", evaluation";
  }
}

TEST_P(LinearKernels, cross_entropy_head_adds_to_the_gradient_and_leaves_padding_alone) {
  const HeadCase s{21, 19, 100, 128};
  const std::vector<std::int32_t> targets = some_targets(s);
  auto inputs = head_inputs(s, GetParam(), targets);
  Head expected(inputs[0].values(), inputs[1].values(), targets, s.classes, s.padded, GetParam());
  RunOptions options;
  options.accumulate = true;
  options.start = {{}, {}, std::vector<double>(expected.dw.size(), 2.0)};
  for (std::size_t i = 0; i < expected.dw.size(); ++i) {
    expected.dw[i] += 2.0;
    expected.dw_tolerance[i] += static_cast<double>(s.n + 1) * 0x1p-24 * 2.0;
  }
  const auto got =
      run_op(LinearCrossEntropy(s.classes, true), inputs, options, training_outputs(s, GetParam()));
  expect_close(got[2].values(), expected.dw, expected.dw_tolerance, "dw +=");
  const std::vector<double> dw = got[2].values();
  for (std::int64_t i = s.classes * s.width; i < s.padded * s.width; ++i)
    ASSERT_EQ(dw[static_cast<std::size_t>(i)], 2.0);
}

TEST_P(LinearKernels, cross_entropy_of_ignored_targets_is_zero) {
  const HeadCase s{6, 10, 50, 128};
  auto inputs = head_inputs(s, GetParam(), std::vector<std::int32_t>(6, -100));
  const auto got = run_op(LinearCrossEntropy(s.classes, true), inputs, {}, training_outputs(s, GetParam()));
  for (const TestTensor& output : got)
    for (const double value : output.values()) ASSERT_EQ(value, 0.0);
}

TEST_P(LinearKernels, cross_entropy_is_nan_where_an_input_is) {
  const HeadCase s{3, 10, 50, 128};
  auto inputs = head_inputs(s, GetParam(), {1, 2, 3});
  std::vector<double> x = inputs[0].values();
  x[12] = std::numeric_limits<double>::quiet_NaN();
  inputs[0].fill(x);
  EXPECT_TRUE(std::isnan(run_op(LinearCrossEntropy(s.classes, false), inputs)[0].values()[0]));
}

TEST_P(LinearKernels, cross_entropy_head_refuses_a_target_beyond_the_classes) {
  const HeadCase s{3, 10, 50, 128};
  auto inputs = head_inputs(s, GetParam(), {1, 50, 3});
  EXPECT_THROW(run_op(LinearCrossEntropy(s.classes, false), inputs), Defect);
}

TEST_P(LinearKernels, cross_entropy_bits_do_not_depend_on_threads) {
  const HeadCase s{1100, 40, 777, 896};
  auto inputs = head_inputs(s, GetParam(), some_targets(s));
  const auto run = [&](int threads) {
    RunOptions options;
    options.threads = threads;
    return run_op(LinearCrossEntropy(s.classes, true), inputs, options, training_outputs(s, GetParam()));
  };
  const auto one = run(1);
  for (const int threads : {2, 3, 4, 8}) {
    const auto some = run(threads);
    for (std::size_t i = 0; i < one.size(); ++i)
      EXPECT_TRUE(some[i].same_bits(one[i])) << "output " << i << ", " << threads << " threads";
  }
}

}  // namespace
}  // namespace muster
