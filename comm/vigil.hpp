// Who lives: what signs of life mean, apart from how they travel (comm/signs_of_life.hpp) and from any clock.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/pulse.hpp"

namespace muster {

// What a rank tells the others of its pulse. Travels as it is.
struct Sign {
  std::uint64_t moved = 0;  // changes when the rank gets on
  double patience = 0;      // seconds that its work may take without that; 0: at no work that is told
  std::array<char, 47> what{};
  bool last = false;  // it leaves in order, and sends no more
};

Sign sign_of(const Pulse::Reading& reading, double limit_seconds);

class Vigil {
 public:
  // Ranks of which nothing was heard yet count as heard at `now`.
  Vigil(int ranks, double limit_seconds, double now);

  void hear(int rank, const Sign& sign, double now);

  // Whether a rank that waits for others has reason to: some rank gets on, or may still. The limit counts from when one
  // was last seen to.
  bool any_lives(double now) const;
  // Seconds that `rank` is overdue at its own work; 0 if it is not.
  double overdue(int rank, double now) const;
  // What is known of a rank that is waited for: "silent for 301 s".
  std::string known_of(int rank, double now) const;

 private:
  struct Rank {
    Sign sign;
    double heard = 0, moved = 0;
  };
  double limit_;
  std::vector<Rank> ranks_;
};

}  // namespace muster
