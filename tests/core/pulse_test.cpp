// What a rank shows of itself.

#include "core/pulse.hpp"

#include <chrono>
#include <gtest/gtest.h>
#include <thread>

namespace muster {
namespace {

TEST(Pulse, tells_the_work_in_hand_and_then_what_it_was_part_of) {
  Pulse pulse;
  EXPECT_EQ(pulse.read().task.kind, Pulse::Kind::none);
  {
    const Pulse::Work whole = pulse.work("loading");
    {
      const Pulse::Work part = pulse.writing("completing", 100);
      EXPECT_EQ(pulse.read().task.what, "completing");
      EXPECT_EQ(pulse.read().task.bytes, 100u);
      EXPECT_EQ(pulse.read().task.kind, Pulse::Kind::writing);
    }
    EXPECT_EQ(pulse.read().task.what, "loading");
    EXPECT_EQ(pulse.read().task.kind, Pulse::Kind::usual);
  }
  EXPECT_EQ(pulse.read().task.kind, Pulse::Kind::none);
}

void compute_for(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

TEST(Pulse, moves_by_beats_and_at_work_by_computing) {
  Pulse pulse;
  const auto moved = [&] { return pulse.read().moved; };
  const std::uint64_t start = moved();
  compute_for(std::chrono::milliseconds(5));
  EXPECT_EQ(moved(), start) << "it may spin while it waits for others";
  pulse.beat();
  EXPECT_GT(moved(), start);

  const Pulse::Work work = pulse.work("loading");
  std::uint64_t before = 0, after = 0;
  std::thread([&] { before = moved(); }).join();
  compute_for(std::chrono::milliseconds(5));
  std::thread([&] { after = moved(); }).join();
  EXPECT_GT(after, before);
}

}  // namespace
}  // namespace muster
