// What signs of life mean, told the time.

#include "comm/vigil.hpp"

#include <gtest/gtest.h>

namespace muster {
namespace {

constexpr double limit = 300;

Pulse::Reading reading(std::uint64_t moved, Pulse::Kind kind = Pulse::Kind::none, std::uint64_t bytes = 0) {
  return {moved, {kind, "saving", bytes}};
}

TEST(Vigil, a_rank_that_shows_nothing_counts_as_alive_for_the_limit) {
  Vigil vigil(2, limit, 0);
  for (int now = 0; now < 299; ++now) {
    vigil.hear(0, sign_of(reading(0), limit), now);
    vigil.hear(1, sign_of(reading(0), limit), now);
  }
  EXPECT_TRUE(vigil.any_lives(299));
  vigil.hear(1, sign_of(reading(0), limit), 300);
  EXPECT_FALSE(vigil.any_lives(300));
}

TEST(Vigil, a_rank_that_gets_on_lives_however_long_others_wait_for_it) {
  Vigil vigil(2, limit, 0);
  for (int beat = 1; beat <= 100; ++beat) {
    const double now = 200.0 * beat;
    vigil.hear(1, sign_of(reading(static_cast<std::uint64_t>(beat), Pulse::Kind::usual), limit), now);
    EXPECT_TRUE(vigil.any_lives(now + 299)) << now;
    EXPECT_EQ(vigil.overdue(1, now + 299), 0) << now;
  }
}

TEST(Vigil, one_call_to_write_is_given_four_times_the_limit_and_a_second_for_each_mebibyte) {
  const auto patience = [](Pulse::Kind kind, std::uint64_t bytes) {
    return sign_of(reading(1, kind, bytes), limit).patience;
  };
  EXPECT_EQ(patience(Pulse::Kind::none, 0), 0);
  EXPECT_EQ(patience(Pulse::Kind::usual, 0), limit);
  EXPECT_EQ(patience(Pulse::Kind::writing, 0), 4 * limit);
  EXPECT_EQ(patience(Pulse::Kind::writing, 1500 << 20), 4 * limit + 1500);

  Vigil vigil(2, limit, 0);
  const Sign syncing = sign_of(reading(1, Pulse::Kind::writing, 100 << 20), limit);
  for (int now = 1; now <= 2000; ++now) {
    vigil.hear(1, syncing, now);
    EXPECT_EQ(vigil.any_lives(now), now < 1301) << now;
    EXPECT_EQ(vigil.overdue(1, now) > 0, now >= 1301) << now;
  }
  EXPECT_EQ(vigil.known_of(1, 1400), "for 1399 s no further in saving");
}

TEST(Vigil, a_rank_that_fell_silent_does_not_live_whatever_it_was_at) {
  Vigil vigil(2, limit, 0);
  vigil.hear(1, sign_of(reading(1, Pulse::Kind::writing, std::uint64_t{1} << 40), limit), 100);
  EXPECT_TRUE(vigil.any_lives(399));
  EXPECT_FALSE(vigil.any_lives(400));
  EXPECT_EQ(vigil.known_of(1, 401), "silent for 301 s");
}

TEST(Vigil, who_only_computes_or_waits_is_never_overdue) {
  Vigil vigil(1, limit, 0);
  vigil.hear(0, sign_of(reading(1), limit), 1);
  EXPECT_EQ(vigil.overdue(0, 1e6), 0);
  EXPECT_EQ(vigil.known_of(0, 2), "");
}

TEST(Vigil, long_names_of_work_travel_cut) {
  Pulse::Reading long_one = reading(1, Pulse::Kind::usual);
  long_one.task.what = std::string(1000, 'x');
  EXPECT_EQ(std::string(sign_of(long_one, limit).what.data()), std::string(46, 'x'));
}

}  // namespace
}  // namespace muster
