// Where documents lie in the tensors of attention, as a ragged batch tells it.
#include <gtest/gtest.h>
#include <vector>

#include "model/ops/cuda/document_layout.hpp"
#include "tests/model/test_device.hpp"

namespace muster::cuda {
namespace {

using testing::TestDevice;

// Two samples of 5 tokens in three documents, 3 | 2 + 5, and two entries unused.
TEST(DocumentLayout, tells_offsets_in_elements_and_ends_with_empty_documents) {
  if (!testing::has_device({DeviceKind::cuda})) GTEST_SKIP() << "there is no GPU";
  TestDevice device(DeviceKind::cuda);
  const testing::OnDevice<std::int32_t> starts(device, {0, 3, 5, 10, 10, 10});
  constexpr std::int64_t count = 7;  // two more than there are entries for
  const testing::OnDevice<std::byte> memory(device, DocumentLayout::bytes(count));
  device.run([&](NativeStream stream) {
    DocumentLayout(memory.data(), count).fill(starts.data(), 5, 5, 4, {100, 30, 20}, stream);
  });

  std::vector<std::byte> host = memory.values();
  const DocumentLayout seen(host.data(), count);
  const auto offsets = [](const std::int64_t* entries) { return std::vector(entries, entries + count + 1); };
  using Offsets = std::vector<std::int64_t>;
  EXPECT_EQ(offsets(seen.q), (Offsets{0, 300, 500, 1000, 1000, 1000, 1000, 1000}));
  EXPECT_EQ(offsets(seen.kv), (Offsets{0, 90, 150, 300, 300, 300, 300, 300}));
  EXPECT_EQ(offsets(seen.o), (Offsets{0, 60, 100, 200, 200, 200, 200, 200}));
  // The second sample begins behind the 4 heads of the first.
  EXPECT_EQ(offsets(seen.lse), (Offsets{0, 3, 20, 40, 40, 40, 40, 40}));
  EXPECT_EQ(std::vector(seen.lengths, seen.lengths + count),
            (std::vector<std::int32_t>{3, 2, 5, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace muster::cuda
