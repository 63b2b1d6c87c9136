#include "model/graph/first_fit.hpp"

#include <gtest/gtest.h>
#include <vector>

#include "core/philox.hpp"
#include "tests/reference/first_fit.hpp"

namespace muster {
namespace {

class Drawn {
 public:
  explicit Drawn(std::uint32_t seed) : seed_(seed) {}
  std::uint32_t operator()(std::uint32_t bound) { return philox({n_++, seed_, 0, 0}, 12)[0] % bound; }

 private:
  std::uint32_t seed_, n_ = 0;
};

void expect_the_obvious_places(const std::vector<Block>& blocks, std::uint32_t seed) {
  const std::vector<std::uint64_t> expected = reference::first_fit(blocks);
  FirstFit fit;
  for (std::size_t i = 0; i < blocks.size(); ++i)
    ASSERT_EQ(fit.place(blocks[i]), expected[i]) << "block " << i << " of seed " << seed;
}

TEST(FirstFit, finds_the_lowest_gap_among_random_lifetimes) {
  for (std::uint32_t seed = 0; seed < 600; ++seed) {
    Drawn draw(seed);
    const std::uint32_t steps = 1 + draw(200), longest = 1 + draw(60), largest = 1 + draw(40);
    std::vector<Block> blocks(1 + draw(400));
    for (Block& block : blocks) {
      block.bytes = draw(largest);  // of nothing, too
      block.first = static_cast<std::int32_t>(draw(steps));
      block.last = block.first + static_cast<std::int32_t>(draw(longest));
    }
    expect_the_obvious_places(blocks, seed);
  }
}

// What forward keeps for backward is needed in the reverse order, beside what is needed at once.
TEST(FirstFit, finds_the_lowest_gap_among_the_lifetimes_of_layers) {
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    Drawn draw(seed);
    const auto layers = static_cast<std::int32_t>(1 + draw(150));
    std::vector<Block> blocks;
    for (std::int32_t layer = 0; layer < layers; ++layer) {
      const std::int32_t forward = 4 * layer, backward = 8 * layers - 4 * layer;
      for (std::uint32_t kept = 0; kept < 3; ++kept)
        blocks.push_back({1 + draw(9), forward + static_cast<std::int32_t>(kept), backward});
      for (const std::int32_t step : {forward, backward})
        blocks.push_back({1 + draw(30), step, step + static_cast<std::int32_t>(draw(4))});
    }
    for (std::size_t i = blocks.size(); i > 1 && seed % 2 == 1; --i)
      std::swap(blocks[i - 1], blocks[draw(static_cast<std::uint32_t>(i))]);
    expect_the_obvious_places(blocks, seed);
  }
}

}  // namespace
}  // namespace muster
