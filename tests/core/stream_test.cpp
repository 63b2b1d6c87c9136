#include "core/stream.hpp"

#include <chrono>
#include <gtest/gtest.h>
#include <stdexcept>
#include <vector>

namespace muster {
namespace {

TEST(ThreadStream, runs_work_in_the_order_of_its_queue) {
  ThreadStream stream([] { std::this_thread::sleep_for(std::chrono::microseconds(50)); });
  std::vector<int> seen;
  for (int i = 0; i < 20; ++i) stream.enqueue([&seen, i](NativeStream) { seen.push_back(i); });
  stream.synchronize();
  ASSERT_EQ(seen.size(), 20u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST(ThreadStream, work_after_a_wait_sees_what_the_other_stream_wrote) {
  ThreadStream first([] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }), second;
  int value = 0, seen = 0;
  first.enqueue([&](NativeStream) { value = 7; });
  second.wait(first.record());
  second.enqueue([&](NativeStream) { seen = value; });
  second.synchronize();
  EXPECT_EQ(seen, 7);
}

TEST(ThreadStream, a_failure_reaches_whoever_waits) {
  ThreadStream stream;
  stream.enqueue([](NativeStream) { throw std::runtime_error("broken"); });
  EXPECT_THROW(stream.synchronize(), std::runtime_error);
}

TEST(Event, a_default_event_is_complete) { EXPECT_TRUE(Event().complete()); }

}  // namespace
}  // namespace muster
