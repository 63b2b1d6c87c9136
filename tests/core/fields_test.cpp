#include "core/fields.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"

namespace muster {
namespace {

TEST(Fields, of_a_batch_lie_one_after_the_other_and_are_found_by_name) {
  const std::vector<Field> fields = {
      {"tokens", DType::i32, 3}, {"pixels", DType::u8, 5}, {"targets", DType::i32, 1}};
  EXPECT_EQ(Batch::bytes(fields), 16u + 8u + 8u);
  std::vector<std::byte> memory(Batch::bytes(fields));
  const Batch batch(fields, memory);
  EXPECT_TRUE(batch.has("pixels"));
  EXPECT_FALSE(batch.has("positions"));
  EXPECT_EQ(batch.i32("tokens").size(), 3u);
  EXPECT_EQ(batch.bytes_of("pixels").data(), memory.data() + 16);
  EXPECT_EQ(batch.bytes_of("pixels").size(), 5u);
  EXPECT_EQ(batch.bytes_of("targets").data(), memory.data() + 24);
}

TEST(Fields, that_a_batch_lacks_or_has_of_another_type_are_defects) {
  const std::vector<Field> fields = {{"pixels", DType::u8, 8}};
  std::vector<std::byte> memory(Batch::bytes(fields));
  const Batch batch(fields, memory);
  EXPECT_THROW(batch.bytes_of("tokens"), Defect);
  EXPECT_THROW(batch.i32("pixels"), Defect);
  EXPECT_THROW(Batch(fields, std::span(memory).first(7)), Defect);
}

}  // namespace
}  // namespace muster
