#include "data/sampler.hpp"

#include <algorithm>
#include <map>

#include "tests/data/scratch.hpp"

namespace muster {
namespace {

using Source = Sampler::Source;

TEST(Sampler, one_source_gives_each_sample_once_an_epoch_in_a_new_order) {
  const std::vector<Source> sources = {{1000, 1.0}};
  Sampler sampler(sources, 9);
  std::vector<std::vector<std::uint64_t>> epochs(3);
  for (std::uint64_t slot = 0; slot < 3000; ++slot) {
    const Sampler::Sample sample = sampler.at(slot);
    EXPECT_EQ(sample.source, 0u);
    EXPECT_EQ(sample.epoch, slot / 1000);
    epochs[slot / 1000].push_back(sample.index);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
  for (auto& epoch : epochs) {
    std::sort(epoch.begin(), epoch.end());
    for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(epoch[i], i);
  }
}

TEST(Sampler, blocks_hold_each_source_by_largest_remainder) {
  const std::vector<Source> sources = {{100000, 1.0}, {100000, 1.0}, {100000, 1.0}};
  Sampler sampler(sources, 1);
  for (std::uint64_t block = 0; block < 3; ++block) {
    std::map<std::uint32_t, int> given;
    for (std::uint64_t i = 0; i < Sampler::block; ++i) ++given[sampler.at(block * Sampler::block + i).source];
    EXPECT_EQ(given[0], 1366);  // 4096 = 3 x 1365 + 1
    EXPECT_EQ(given[1], 1365);
    EXPECT_EQ(given[2], 1365);
  }
}

TEST(Sampler, no_sample_comes_twice_before_each_came_once) {
  const std::vector<Source> sources = {{5000, 0.7}, {700, 0.2}, {100000, 0.1}};
  Sampler sampler(sources, 1);
  std::vector<std::vector<int>> seen = {std::vector<int>(5000), std::vector<int>(700),
                                        std::vector<int>(100000)};
  for (std::uint64_t slot = 0; slot < 20000; ++slot) {
    const Sampler::Sample sample = sampler.at(slot);
    EXPECT_EQ(seen[sample.source][sample.index]++, static_cast<int>(sample.epoch));
  }
}

TEST(Sampler, a_slot_gives_the_same_whatever_was_asked_before) {
  const std::vector<Source> sources = {{500, 3.0}, {700, 1.0}};
  Sampler forward(sources, 4), backward(sources, 4), other(sources, 5);
  std::vector<Sampler::Sample> samples;
  for (std::uint64_t slot = 0; slot < 10000; ++slot) samples.push_back(forward.at(slot));
  int same_in_other = 0;
  for (std::uint64_t slot = 10000; slot-- > 0;) {
    const Sampler::Sample sample = backward.at(slot);
    ASSERT_EQ(sample.source, samples[slot].source);
    ASSERT_EQ(sample.index, samples[slot].index);
    ASSERT_EQ(sample.epoch, samples[slot].epoch);
    const Sampler::Sample elsewhere = other.at(slot);
    same_in_other += elsewhere.source == sample.source && elsewhere.index == sample.index ? 1 : 0;
  }
  EXPECT_LT(same_in_other, 100);  // by chance 10000 x (0.75^2 / 500 + 0.25^2 / 700) = 12
}

TEST(Sampler, weights_that_give_nothing_are_refused) {
  const auto with = [](double weight) {
    return message_of([&] {
      const std::vector<Source> sources = {{10, 1.0}, {10, weight}};
      Sampler(sources, 1);
    });
  };
  EXPECT_TRUE(tells(with(0), {"weight of 0", "leave the source out"}));
  EXPECT_TRUE(tells(with(-1), {"weight of -1"}));
  EXPECT_TRUE(tells(with(1e-6), {"gets no sample", "raise it"}));
  EXPECT_EQ(with(1e-3), "no error");
}

}  // namespace
}  // namespace muster
