// Where segments lie in the tensors of attention, as a ragged batch tells it, and what it leaves unwritten.
#include <gtest/gtest.h>
#include <limits>
#include <vector>

#include "model/ops/cuda/segment_layout.hpp"
#include "tests/model/test_device.hpp"

namespace muster::cuda {
namespace {

using testing::OnDevice;
using testing::TestDevice;

class Segments : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::has_device({DeviceKind::cuda})) GTEST_SKIP() << "there is no GPU";
    device_.emplace(DeviceKind::cuda);
  }
  TestDevice& device() { return *device_; }

 private:
  std::optional<TestDevice> device_;
};

// Two samples of 5 queries and of 8 keys, in three segments; in the fourth are queries alone, in the fifth keys alone.
TEST_F(Segments, tell_offsets_in_elements_and_end_with_empty_ones) {
  const OnDevice<std::int32_t> queries(device(), {0, 3, 5, 8, 10, 10}), keys(device(), {0, 7, 8, 12, 12, 16});
  constexpr std::int64_t count = 7;  // two more than there are
  const OnDevice<std::byte> memory(device(), SegmentLayout::bytes(count));
  device().run([&](NativeStream stream) {
    SegmentLayout(memory.data(), count).fill({queries.data(), keys.data(), 5}, 5, 4, {100, 30, 20}, stream);
  });

  std::vector<std::byte> host = memory.values();
  const SegmentLayout seen(host.data(), count);
  const auto offsets = [](const std::int64_t* entries) { return std::vector(entries, entries + count + 1); };
  const auto lengths = [](const std::int32_t* entries) { return std::vector(entries, entries + count); };
  using Offsets = std::vector<std::int64_t>;
  using Lengths = std::vector<std::int32_t>;
  EXPECT_EQ(offsets(seen.q), (Offsets{0, 300, 500, 800, 1000, 1000, 1000, 1000}));
  EXPECT_EQ(offsets(seen.kv), (Offsets{0, 210, 240, 360, 360, 480, 480, 480}));
  EXPECT_EQ(offsets(seen.o), (Offsets{0, 60, 100, 160, 200, 200, 200, 200}));
  // The second sample begins behind the 4 heads of the first.
  EXPECT_EQ(offsets(seen.lse), (Offsets{0, 3, 20, 23, 40, 40, 40, 40}));
  EXPECT_EQ(lengths(seen.q_lengths), (Lengths{3, 2, 3, 0, 0, 0, 0}));
  EXPECT_EQ(lengths(seen.kv_lengths), (Lengths{7, 1, 4, 0, 0, 0, 0}));
}

// Rows that no segment has, and those of a segment whose other side is empty, in their own columns alone.
TEST_F(Segments, clear_the_rows_that_meet_no_other) {
  const OnDevice<std::int32_t> queries(device(), {1, 3, 6, 6, 8}), keys(device(), {0, 2, 2, 4, 5});
  const SegmentStarts starts{queries.data(), keys.data(), 4};
  const std::vector<bf16> ones(9 * 6, bf16(1));
  const OnDevice<bf16> o(device(), ones), dq(device(), ones), dkv(device(), ones);
  const OnDevice<float> lse(device(), std::vector<float>(9 * 2, 1));
  const auto rows = [](SideRows::Side side, const OnDevice<bf16>& data, std::int64_t count,
                       std::int64_t column, std::int64_t columns) {
    return SideRows{side, reinterpret_cast<std::byte*>(data.data()), count, 6, column, columns};
  };
  using Side = SideRows::Side;
  device().run([&](NativeStream stream) {
    clear_unpaired_outputs(starts, rows(Side::queries, o, 9, 0, 6), lse.data(), 9, 2, stream);
    clear_unpaired(
        starts,
        {rows(Side::queries, dq, 9, 1, 2), rows(Side::keys, dkv, 6, 0, 1), rows(Side::keys, dkv, 6, 4, 2)},
        stream);
  });
  const std::vector<bool> blind = {true, false, false, true, true, true, false, false, true};
  const std::vector<bool> unseen = {false, false, true, true, false, true, false, false, false};  // 6 rows
  for (std::size_t i = 0; i < ones.size(); ++i) {
    const std::size_t row = i / 6, column = i % 6;
    const auto expect_cleared = [&](const OnDevice<bf16>& data, bool cleared) {
      EXPECT_EQ(static_cast<float>(data.values()[i]), cleared ? 0 : 1)
          << "row " << row << ", column " << column;
    };
    expect_cleared(o, blind[row]);
    expect_cleared(dq, blind[row] && (column == 1 || column == 2));
    expect_cleared(dkv, unseen[row] && (column == 0 || column >= 4));
  }
  for (std::size_t i = 0; i < 18; ++i)
    EXPECT_EQ(lse.values()[i], blind[i % 9] ? -std::numeric_limits<float>::infinity() : 1.0F) << i;
}

}  // namespace
}  // namespace muster::cuda
