// Who owns what of the flat space: every element once, in whole blocks, about as much on each rank.

#include "trainer/plan/ownership.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <utility>
#include <vector>

#include "model/families/family.hpp"

namespace muster {
namespace {

constexpr std::int64_t some_sizes[] = {flat_block, 7 * flat_block, bucket_elements,
                                       bucket_elements + flat_block, 5 * bucket_elements - 3 * flat_block};

TEST(Buckets, cover_the_space_from_its_end_to_its_beginning) {
  for (const std::int64_t elements : some_sizes) {
    std::int64_t end = elements;
    for (const Bucket& bucket : make_buckets(elements, 3)) {
      EXPECT_EQ(bucket.range.end, end);
      EXPECT_GT(bucket.range.size(), 0);
      EXPECT_LE(bucket.range.size(), bucket_elements);
      end = bucket.range.begin;
    }
    EXPECT_EQ(end, 0);
  }
}

TEST(Buckets, are_divided_into_consecutive_pieces_of_whole_blocks) {
  for (const std::int64_t elements : some_sizes)
    for (const int ranks : {1, 2, 3, 8, 64})
      for (const Bucket& bucket : make_buckets(elements, ranks)) {
        ASSERT_EQ(bucket.pieces.size(), static_cast<std::size_t>(ranks));
        std::int64_t at = bucket.range.begin;
        const auto [least, most] = std::ranges::minmax(bucket.pieces, {}, &Range::size);
        for (const Range& piece : bucket.pieces) {
          EXPECT_EQ(piece.begin, at);
          EXPECT_EQ(piece.begin % flat_block, 0);
          at = piece.end;
        }
        EXPECT_EQ(at, bucket.range.end);
        EXPECT_LE(most.size() - least.size(), flat_block);
      }
}

TEST(Buckets, give_each_rank_its_share) {
  constexpr std::int64_t elements = 5 * bucket_elements;
  const auto buckets = make_buckets(elements, 7);
  std::int64_t sum = 0;
  for (int rank = 0; rank < 7; ++rank) {
    const std::int64_t owned = owned_elements(buckets, rank);
    EXPECT_NEAR(static_cast<double>(owned), elements / 7.0, 5.0 * flat_block);
    sum += owned;
  }
  EXPECT_EQ(sum, elements);
}

class Segments : public testing::Test {
 protected:
  static ParameterSpace make_space() {
    ModelConfig model;
    model.layers = 2;
    model.width = 48;
    model.heads = model.kv_heads = 4;
    model.feed_forward = 100;
    model.vocabulary = 300;  // padded to 384 rows
    model.context = 40;
    return make_model(model)->parameters();
  }
  std::int64_t elements_in_use(std::size_t p) const { return elements_of(space_[p].logical_shape()); }

  const ParameterSpace space_ = make_space();
};

TEST_F(Segments, of_the_whole_space_are_the_parameters_without_padding) {
  const auto all = segments(space_, {0, space_.elements()});
  ASSERT_EQ(all.size(), space_.size());
  for (std::size_t p = 0; p < all.size(); ++p) {
    EXPECT_EQ(all[p].parameter, p);
    EXPECT_EQ(all[p].flat, space_[p].offset);
    EXPECT_EQ(all[p].begin, 0);
    EXPECT_EQ(all[p].end, elements_in_use(p));
  }
  EXPECT_EQ(elements_in_use(0), 300 * 48);
  EXPECT_EQ(space_[0].logical_shape(), (Shape{300, 48}));
}

TEST_F(Segments, of_consecutive_ranges_hold_every_element_once) {
  for (const std::int64_t length : {std::int64_t{1000}, flat_block, 3 * flat_block}) {
    std::vector<std::vector<int>> seen;
    for (std::size_t p = 0; p < space_.size(); ++p)
      seen.emplace_back(static_cast<std::size_t>(elements_in_use(p)));
    for (std::int64_t begin = 0; begin < space_.elements(); begin += length)
      for (const Segment& segment : segments(space_, {begin, std::min(begin + length, space_.elements())})) {
        EXPECT_EQ(segment.flat, space_[segment.parameter].offset + segment.begin);
        EXPECT_GE(segment.flat, begin);
        EXPECT_LE(segment.flat + segment.end - segment.begin, begin + length);
        for (std::int64_t i = segment.begin; i < segment.end; ++i)
          ++seen[segment.parameter][static_cast<std::size_t>(i)];
      }
    for (std::size_t p = 0; p < seen.size(); ++p)
      EXPECT_EQ(std::ranges::count(seen[p], 1), elements_in_use(p)) << space_[p].name;
  }
}

TEST_F(Segments, of_padding_are_none) {
  const std::int64_t padding = space_[0].offset + elements_in_use(0);
  ASSERT_LT(padding, space_[1].offset);
  EXPECT_TRUE(segments(space_, {padding, space_[1].offset}).empty());
  EXPECT_TRUE(segments(space_, {5, 5}).empty());
}

}  // namespace
}  // namespace muster
