// What a bert makes of the tokens that data gives it.

#include <algorithm>
#include <gtest/gtest.h>
#include <memory>
#include <vector>

#include "core/fields.hpp"
#include "model/families/family.hpp"

namespace muster {
namespace {

ModelConfig small_bert() {
  ModelConfig config;
  config.family = Family::bert;
  config.layers = 1;
  config.width = 16;
  config.heads = 2;
  config.vocabulary = 101;
  config.context = 64;
  family_of(config).resolve(config);
  return config;
}

constexpr std::int32_t mask_token = 100;
constexpr std::int64_t length = 64;

std::int32_t token_of(std::int64_t slot, std::int64_t t) {
  return static_cast<std::int32_t>((slot * 7 + t * 3) % mask_token);
}

// Samples of slots [first, first + count), of which the last `padding` are none, as a bert reads them.
struct Masked {
  Masked(const Model& model, std::int64_t first, std::int64_t count, std::int64_t padding = 0,
         std::uint64_t seed = 1)
      : fields(model.fields({.samples = count, .length = length})),
        memory(Batch::bytes(fields)),
        batch(fields, memory) {
    for (std::int64_t i = 0; i < count * length; ++i)
      batch.i32("tokens")[static_cast<std::size_t>(i)] = token_of(first + i / length, i % length);
    batch.samples = count - padding;
    model.derive(batch, {first, count, seed});
  }
  std::vector<std::int32_t> values(const char* field, std::int64_t sample) const {
    const auto part = batch.i32(field).subspan(static_cast<std::size_t>(sample * length), length);
    return {part.begin(), part.end()};
  }
  std::vector<Field> fields;
  std::vector<std::byte> memory;
  Batch batch;
};

class Bert : public testing::Test {
 protected:
  const std::unique_ptr<Model> model_ = make_model(small_bert());
};

TEST_F(Bert, is_to_restore_a_share_of_the_tokens_most_of_which_are_masked) {
  constexpr std::int64_t count = 2000;
  const Masked masked(*model_, 5, count);
  double targets = 0, masks = 0, others = 0;
  for (std::int64_t i = 0; i < count * length; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const std::int32_t token = masked.batch.i32("tokens")[at], target = masked.batch.i32("targets")[at],
                       before = token_of(5 + i / length, i % length);
    if (target == ignored_target) {
      EXPECT_EQ(token, before);
      continue;
    }
    EXPECT_EQ(target, before);
    ++targets;
    masks += token == mask_token ? 1 : 0;
    others += token != mask_token && token != before ? 1 : 0;
  }
  EXPECT_EQ(masked.batch.valid_targets, static_cast<std::int64_t>(targets));
  // Shares of so many draws lie within five of their standard deviations.
  EXPECT_NEAR(targets / (count * length), 0.15, 0.005);
  EXPECT_NEAR(masks / targets, 0.8, 0.015);
  EXPECT_NEAR(others / targets, 0.1 * 99 / 100, 0.011);
  EXPECT_EQ(std::ranges::count(masked.batch.i32("token_types"), 0), count * length);
}

// So the number of ranks and the size of a micro-batch change nothing.
TEST_F(Bert, masks_a_sample_by_its_slot_alone) {
  const Masked all(*model_, 16, 8);
  for (std::int64_t sample = 0; sample < 8; ++sample) {
    const Masked one(*model_, 16 + sample, 1);
    EXPECT_EQ(one.values("tokens", 0), all.values("tokens", sample));
    EXPECT_EQ(one.values("targets", 0), all.values("targets", sample));
  }
}

TEST_F(Bert, masks_another_slot_and_another_seed_anew) {
  const auto places = [](const Masked& masked) {
    std::vector<bool> at;
    for (const std::int32_t target : masked.values("targets", 0)) at.push_back(target != ignored_target);
    return at;
  };
  EXPECT_NE(places(Masked(*model_, 3, 1)), places(Masked(*model_, 4, 1)));
  EXPECT_NE(places(Masked(*model_, 3, 1)),
            places(Masked(*model_, std::int64_t{3} + (std::int64_t{1} << 32), 1)));
  EXPECT_NE(places(Masked(*model_, 3, 1)), places(Masked(*model_, 3, 1, 0, 2)));
}

TEST_F(Bert, is_to_restore_nothing_of_what_fills_up_the_last_batch) {
  const Masked whole(*model_, 0, 4), part(*model_, 0, 4, 2);
  EXPECT_EQ(part.values("targets", 1), whole.values("targets", 1));
  for (const std::int64_t filling : {2, 3})
    EXPECT_EQ(part.values("targets", filling), std::vector<std::int32_t>(length, ignored_target));
  EXPECT_LT(part.batch.valid_targets, whole.batch.valid_targets);
}

}  // namespace
}  // namespace muster
