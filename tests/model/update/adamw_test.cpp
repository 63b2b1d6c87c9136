#include "model/update/adamw.hpp"

#include <cmath>
#include <gtest/gtest.h>
#include <vector>

#include "tests/model/update/flat_test.hpp"

namespace muster {
namespace {

using reference::Values;
using testing::count;
using testing::cuts;
using testing::OnDevice;
using testing::part;
using testing::singles;

struct Spaces {
  std::vector<float> w, m, v;
  bool operator==(const Spaces&) const = default;
};

constexpr AdamWRule rule{.lr = 1e-3f, .decay = 0.1f};

StepOutcome outcome_of(int update) {
  StepOutcome outcome;
  outcome.gradient_scale = 0.25f;
  outcome.correction1 = 1 - std::pow(static_cast<double>(rule.beta1), update);
  outcome.correction2 = 1 - std::pow(static_cast<double>(rule.beta2), update);
  return outcome;
}

class AdamWUpdate : public testing::FlatTest {
 protected:
  // Twenty steps; `whole` or cut by cut, on so many threads.
  Spaces twenty_steps(bool whole, int threads) {
    set_thread_count(threads);
    const OnDevice<float> w(device(), singles(reference::random_values(count, 1)));
    const OnDevice<float> m(device(), count), v(device(), count);
    for (int update = 1; update <= 20; ++update) {
      const OnDevice<float> g(
          device(), singles(reference::random_values(count, static_cast<std::uint64_t>(100 + update))));
      const OnDevice<StepOutcome> outcome(device(), std::vector{outcome_of(update)});
      device().run([&](NativeStream stream) {
        if (whole) {
          kernels().adamw(stream, rule, outcome.data(), w.span(), m.span(), v.span(), g.span());
        } else {
          for (const auto& cut : cuts)
            kernels().adamw(stream, rule, outcome.data(), part(w.span(), cut), part(m.span(), cut),
                            part(v.span(), cut), part(g.span(), cut));
        }
      });
    }
    return {w.values(), m.values(), v.values()};
  }
};

TEST_P(AdamWUpdate, follows_the_double_version_over_twenty_steps) {
  const Spaces got = twenty_steps(true, 1);
  Values w;
  for (const float value : singles(reference::random_values(count, 1)))
    w.push_back(static_cast<double>(value));
  const Values start = w;
  Values m(count), v(count);
  for (int update = 1; update <= 20; ++update) {
    const StepOutcome outcome = outcome_of(update);
    const double lr = static_cast<double>(rule.lr), decay = static_cast<double>(rule.decay);
    const double b1 = static_cast<double>(rule.beta1), b2 = static_cast<double>(rule.beta2);
    const auto gradients = singles(reference::random_values(count, static_cast<std::uint64_t>(100 + update)));
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = static_cast<double>(gradients[i]) * static_cast<double>(outcome.gradient_scale);
      w[i] *= 1 - lr * decay;
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      w[i] -= lr / outcome.correction1 * m[i] /
              (std::sqrt(v[i]) / std::sqrt(outcome.correction2) + static_cast<double>(rule.epsilon));
    }
  }
  // A weight is rounded twice a step, to half a unit of at most 2^-22 (|w| < 8); an update of at most about
  // lr carries some ten roundings of its own, which do not count beside that.
  for (std::size_t i = 0; i < w.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got.w[i]), w[i], 20 * 2 * 0x1p-23) << i;
    ASSERT_NEAR(static_cast<double>(got.m[i]), m[i], 40 * 0x1p-24) << i;
    ASSERT_NEAR(static_cast<double>(got.v[i]), v[i], 60 * 0x1p-24 * v[i]) << i;
    ASSERT_NE(start[i], w[i]) << i;
  }
}

TEST_P(AdamWUpdate, does_nothing_in_a_skipped_step) {
  const Spaces before{singles(reference::random_values(count, 1)),
                      singles(reference::random_values(count, 2)),
                      singles(reference::random_values(count, 3))};
  const OnDevice<float> w(device(), before.w), m(device(), before.m), v(device(), before.v);
  const OnDevice<float> g(device(), std::vector<float>(count, std::nanf("")));
  StepOutcome outcome = outcome_of(3);
  outcome.skipped = 1;
  const OnDevice<StepOutcome> on_device(device(), std::vector{outcome});
  device().run([&](NativeStream stream) {
    kernels().adamw(stream, rule, on_device.data(), w.span(), m.span(), v.span(), g.span());
  });
  EXPECT_TRUE((Spaces{w.values(), m.values(), v.values()} == before));
}

TEST_P(AdamWUpdate, gives_the_same_bits_however_a_range_is_cut_and_on_any_threads) {
  const Spaces whole = twenty_steps(true, 1);
  EXPECT_TRUE(twenty_steps(false, 1) == whole);
  for (int threads = 2; threads <= 4; ++threads) EXPECT_TRUE(twenty_steps(true, threads) == whole) << threads;
}

// The kernel's arguments, from what a configuration tells.
TEST_P(AdamWUpdate, of_the_optimizer_is_that_of_its_kernel) {
  const AdamW optimizer({0.9, 0.95}, 1e-8, 0.1);
  for (const bool decays : {false, true}) {
    const OnDevice<float> g(device(), singles(reference::random_values(count, 5)));
    const OnDevice<StepOutcome> outcome(device(), std::vector{outcome_of(1)});
    std::vector<Spaces> results;
    for (const bool whole : {false, true}) {
      const OnDevice<float> w(device(), singles(reference::random_values(count, 1)));
      const OnDevice<float> m(device(), count), v(device(), count);
      device().run([&](NativeStream stream) {
        if (whole)
          return optimizer.update(stream, kernels(), 1e-3, outcome.data(),
                                  {w.span(), {m.span(), v.span()}, g.span(), decays});
        AdamWRule own = rule;
        if (!decays) own.decay = 0;
        kernels().adamw(stream, own, outcome.data(), w.span(), m.span(), v.span(), g.span());
      });
      results.push_back({w.values(), m.values(), v.values()});
    }
    EXPECT_TRUE(results[0] == results[1]) << decays;
  }
  EXPECT_EQ(optimizer.slots().size(), 2u);
  EXPECT_EQ(optimizer.slots()[0], "adam.m");
  EXPECT_EQ(optimizer.slots()[1], "adam.v");
}

INSTANTIATE_TEST_SUITE_P(Devices, AdamWUpdate, ::testing::ValuesIn(testing::compiled_backends()),
                         [](const auto& kind) { return testing::test_name_of(kind.param); });

}  // namespace
}  // namespace muster
