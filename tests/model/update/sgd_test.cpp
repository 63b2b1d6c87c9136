#include "model/update/sgd.hpp"

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
  std::vector<float> w, momentum;
  bool operator==(const Spaces&) const = default;
};

struct Settings {
  double momentum = 0;
  bool nesterov = false;
  double decay = 0;
  bool keeps() const { return momentum > 0; }
  Sgd optimizer() const { return {momentum, nesterov, decay}; }
};
constexpr Settings every[] = {
    {0, false, 0}, {0, false, 0.01}, {0.9, false, 0}, {0.9, false, 0.01}, {0.9, true, 0.01}};

class SgdUpdate : public testing::FlatTest {
 protected:
  // The update of all, or cut by cut.
  void update(const Settings& settings, double lr, const OnDevice<float>& w, const OnDevice<float>& momentum,
              const std::vector<float>& gradient, const StepOutcome& outcome, bool whole = true) {
    const OnDevice<float> g(device(), gradient);
    const OnDevice<StepOutcome> on_device(device(), std::vector{outcome});
    const Sgd optimizer = settings.optimizer();
    const std::pair<std::int64_t, std::int64_t> all{0, std::ssize(gradient)};
    device().run([&](NativeStream stream) {
      for (const auto& cut : whole ? std::span(&all, 1) : std::span(cuts)) {
        UpdateRange range{part(w.span(), cut), {}, part(g.span(), cut)};
        if (settings.keeps()) range.state[0] = part(momentum.span(), cut);
        optimizer.update(stream, kernels(), lr, on_device.data(), range);
      }
    });
  }

  Spaces twenty_steps(const Settings& settings, bool whole, int threads) {
    set_thread_count(threads);
    const OnDevice<float> w(device(), singles(reference::random_values(count, 1))), momentum(device(), count);
    for (std::uint64_t step = 1; step <= 20; ++step)
      update(settings, 0.1, w, momentum, singles(reference::random_values(count, 100 + step)),
             {.gradient_scale = 0.25f}, whole);
    return {w.values(), momentum.values()};
  }
};

// By torch.optim.SGD (PyTorch 2.15, f32): lr 0.1, six steps from the same weights; the gradient of step t has the elements
// ((7 i + 3 t) mod 11 - 5) / 4.
TEST_P(SgdUpdate, arrives_where_pytorch_arrives) {
  const std::vector<float> start = {0.5f, -1.25f, 3.0f, -0.0625f, 0x1p-20f, 100.0f, 0.0f, -7.5f};
  const Spaces by_pytorch[] = {
      {{0.5f, -1.20000005f, 2.82500005f, 0.0874999985f, -0.0749990493f, 99.9750061f, 0.0250000041f,
        -7.42499971f},
       {}},
      {{0.496932626f, -1.19216955f, 2.80726933f, 0.0874247104f, -0.0747494176f, 99.3763504f, 0.0247258618f,
        -7.38023758f},
       {}},
      {{0.556501985f, -1.44431639f, 2.66499996f, 0.439744234f, -0.271073043f, 100.110748f, 0.202736497f,
        -7.32533169f},
       {0.0627800524f, -0.7714625f, 1.57222247f, -1.10861742f, 0.532140017f, 0.400824964f, -0.0525149703f,
        -0.63925755f}},
      {{0.547115624f, -1.41966116f, 2.61317205f, 0.438865244f, -0.269843966f, 98.333725f, 0.200303227f,
        -7.1923151f},
       {0.0875543952f, -0.838671923f, 1.70637643f, -1.10290027f, 0.527532101f, 5.05944157f, -0.0444457754f,
        -0.986004293f}},
      {{0.53907752f, -1.34325767f, 2.46030879f, 0.537077725f, -0.316755891f, 97.8815918f, 0.203478858f,
        -7.10414076f},
       {0.087975353f, -0.840325952f, 1.70486784f, -1.09986711f, 0.52583003f, 5.05057526f, -0.0433122143f,
        -0.984385371f}},
  };
  for (std::size_t k = 0; k < std::size(every); ++k) {
    const OnDevice<float> w(device(), start), momentum(device(), start.size());
    for (int step = 1; step <= 6; ++step) {
      std::vector<float> gradient;
      for (int i = 0; i < 8; ++i) gradient.push_back(static_cast<float>((7 * i + 3 * step) % 11 - 5) / 4);
      update(every[k], 0.1, w, momentum, gradient, {});
    }
    const Spaces got{w.values(), momentum.values()}, &want = by_pytorch[k];
    // Six steps of up to four roundings each, to half a unit in the last place of numbers no larger than 7.5 or a weight.
    for (std::size_t i = 0; i < start.size(); ++i) {
      const double largest = std::max(7.5, std::abs(static_cast<double>(want.w[i])));
      EXPECT_NEAR(got.w[i], want.w[i], 24 * 0x1p-24 * largest) << k << ", " << i;
      if (every[k].keeps()) {
        EXPECT_NEAR(got.momentum[i], want.momentum[i], 24 * 0x1p-24 * 7.5) << k << ", " << i;
      }
    }
  }
}

TEST_P(SgdUpdate, follows_the_double_version_over_twenty_steps) {
  for (const Settings& settings : every) {
    const Spaces got = twenty_steps(settings, true, 1);
    Values w, b(count);
    for (const float value : singles(reference::random_values(count, 1)))
      w.push_back(static_cast<double>(value));
    for (std::uint64_t step = 1; step <= 20; ++step) {
      const auto gradients = singles(reference::random_values(count, 100 + step));
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double g = static_cast<double>(gradients[i]) * 0.25 + settings.decay * w[i];
        b[i] = settings.momentum * b[i] + g;
        w[i] -= 0.1 * (settings.nesterov ? g + settings.momentum * b[i] : b[i]);
      }
    }
    // Each step rounds the momentum and the weight, both below 16, and what they are made of.
    for (std::size_t i = 0; i < w.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(got.w[i]), w[i], 20 * 4 * 0x1p-21) << i;
      if (settings.keeps()) {
        ASSERT_NEAR(static_cast<double>(got.momentum[i]), b[i], 20 * 4 * 0x1p-21) << i;
      }
    }
  }
}

TEST_P(SgdUpdate, does_nothing_in_a_skipped_step) {
  const Spaces before{singles(reference::random_values(count, 1)),
                      singles(reference::random_values(count, 2))};
  for (const Settings& settings : every) {
    const OnDevice<float> w(device(), before.w), momentum(device(), before.momentum);
    update(settings, 0.1, w, momentum, std::vector<float>(count, std::nanf("")), {.skipped = 1});
    EXPECT_TRUE((Spaces{w.values(), momentum.values()} == before));
  }
}

TEST_P(SgdUpdate, gives_the_same_bits_however_a_range_is_cut_and_on_any_threads) {
  for (const Settings& settings : every) {
    const Spaces whole = twenty_steps(settings, true, 1);
    EXPECT_TRUE(twenty_steps(settings, false, 1) == whole);
    for (int threads = 2; threads <= 4; ++threads)
      EXPECT_TRUE(twenty_steps(settings, true, threads) == whole) << threads;
  }
}

TEST_P(SgdUpdate, spares_what_does_not_decay) {
  Settings decaying{0.9, false, 0.5};
  const OnDevice<float> w(device(), singles(reference::random_values(count, 1))), momentum(device(), count);
  const std::vector<float> before = w.values();
  const OnDevice<float> none(device(), count);
  const OnDevice<StepOutcome> outcome(device(), std::vector{StepOutcome{}});
  device().run([&](NativeStream stream) {
    decaying.optimizer().update(stream, kernels(), 0.1, outcome.data(),
                                {w.span(), {momentum.span()}, none.span(), false});
  });
  EXPECT_EQ(w.values(), before);
}

TEST(Sgd, keeps_nothing_without_momentum) {
  EXPECT_TRUE(Sgd(0, false, 0.1).slots().empty());
  ASSERT_EQ(Sgd(0.9, false, 0.1).slots().size(), 1u);
  EXPECT_EQ(Sgd(0.9, false, 0.1).slots()[0], "sgd.momentum");
}

INSTANTIATE_TEST_SUITE_P(Devices, SgdUpdate, ::testing::ValuesIn(testing::compiled_backends()),
                         [](const auto& kind) { return testing::test_name_of(kind.param); });

}  // namespace
}  // namespace muster
