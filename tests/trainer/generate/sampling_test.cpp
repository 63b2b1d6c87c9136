// Sampling: which token is drawn, and how often.

#include "trainer/generate/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <numeric>
#include <vector>

namespace muster {
namespace {

// Shares of tokens in `draws` draws.
std::vector<double> shares(const std::vector<float>& logits, const Sampling& options,
                           std::uint32_t draws = 40000) {
  std::vector<double> share(logits.size());
  for (std::uint32_t draw = 0; draw < draws; ++draw)
    ++share[static_cast<std::size_t>(sample(logits, options, draw))];
  for (double& value : share) value /= draws;
  return share;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(static_cast<double>(logit) / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

// Five standard deviations of a share of 40,000 draws.
void expect_shares(const std::vector<double>& share, const std::vector<double>& probability) {
  for (std::size_t v = 0; v < share.size(); ++v)
    EXPECT_NEAR(share[v], probability[v], 5 * std::sqrt(probability[v] * (1 - probability[v]) / 40000))
        << "token " << v;
}

const std::vector<float> logits = {1.0f, -2.0f, 3.0f, 2.5f, 0.0f, 2.0f};

TEST(Sampling, never_draws_a_token_that_stands_for_no_text) {
  for (const double temperature : {0.0, 1.0}) {
    const std::vector<double> share = shares(logits, {.temperature = temperature, .vocabulary = 2}, 1000);
    EXPECT_EQ(share[0] + share[1], 1) << temperature;
  }
}

TEST(Sampling, without_temperature_takes_the_likeliest_token) {
  for (std::uint32_t draw = 0; draw < 20; ++draw) EXPECT_EQ(sample(logits, {.temperature = 0}, draw), 2);
}

TEST(Sampling, without_temperature_takes_the_first_of_equal_tokens) {
  EXPECT_EQ(sample(std::vector<float>{0, 4, 4, 1}, {.temperature = 0}, 0), 1);
}

TEST(Sampling, draws_tokens_as_often_as_they_are_likely) {
  expect_shares(shares(logits, {}), softmax(logits, 1));
}

TEST(Sampling, temperature_sharpens_or_levels_the_distribution) {
  expect_shares(shares(logits, {.temperature = 0.5}), softmax(logits, 0.5));
  expect_shares(shares(logits, {.temperature = 3}), softmax(logits, 3));
}

TEST(Sampling, top_k_leaves_the_k_likeliest_in_their_proportions) {
  const std::vector<double> p = softmax(logits, 1);
  const double kept = p[2] + p[3];
  expect_shares(shares(logits, {.top_k = 2}), {0, 0, p[2] / kept, p[3] / kept, 0, 0});
}

TEST(Sampling, top_k_of_one_is_the_likeliest_and_of_more_than_all_is_all) {
  EXPECT_EQ(shares(logits, {.top_k = 1}, 100)[2], 1);
  EXPECT_EQ(shares(logits, {.top_k = 100}), shares(logits, {}));
}

TEST(Sampling, top_p_leaves_the_fewest_likeliest_that_reach_it) {
  // 0.46, 0.28, 0.17, ...: two are needed for 0.6, one for 0.4.
  const std::vector<double> p = softmax(logits, 1);
  ASSERT_LT(p[2], 0.6);
  ASSERT_GT(p[2] + p[3], 0.6);
  const double kept = p[2] + p[3];
  expect_shares(shares(logits, {.top_p = 0.6}), {0, 0, p[2] / kept, p[3] / kept, 0, 0});
  EXPECT_EQ(shares(logits, {.top_p = 0.4}, 100)[2], 1);
}

TEST(Sampling, top_p_of_zero_still_draws_a_token) { EXPECT_EQ(shares(logits, {.top_p = 0}, 100)[2], 1); }

TEST(Sampling, top_p_counts_among_what_top_k_leaves) {
  // Among the two likeliest the first has 0.62.
  EXPECT_EQ(shares(logits, {.top_k = 2, .top_p = 0.6}, 1000)[2], 1);
}

TEST(Sampling, the_same_draw_gives_the_same_token_and_another_seed_others) {
  int differ = 0;
  for (std::uint32_t draw = 0; draw < 200; ++draw) {
    EXPECT_EQ(sample(logits, {.seed = 5}, draw), sample(logits, {.seed = 5}, draw));
    differ += sample(logits, {.seed = 5}, draw) != sample(logits, {.seed = 6}, draw);
  }
  EXPECT_GT(differ, 50);
}

TEST(Sampling, huge_logits_do_not_overflow) {
  const std::vector<float> huge = {3e38f, -3e38f, 3e38f};
  const std::vector<double> share = shares(huge, {}, 1000);
  EXPECT_EQ(share[1], 0);
  EXPECT_NEAR(share[0], 0.5, 0.08);
}

}  // namespace
}  // namespace muster
