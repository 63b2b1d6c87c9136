#include "comm/vigil.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace muster {
namespace {

// One call to a slow disk takes as long as the bytes that it was given take on it, and what others gave it before.
double patience_of(const Pulse::Task& task, double limit) {
  constexpr double times_of_a_disk = 4, slowest_disk = 1 << 20;  // bytes/s
  switch (task.kind) {
    case Pulse::Kind::none:
      return 0;
    case Pulse::Kind::usual:
      return limit;
    case Pulse::Kind::writing:
      break;
  }
  return times_of_a_disk * limit + static_cast<double>(task.bytes) / slowest_disk;
}

}  // namespace

Sign sign_of(const Pulse::Reading& reading, double limit_seconds) {
  Sign sign;
  sign.moved = reading.moved;
  sign.patience = patience_of(reading.task, limit_seconds);
  reading.task.what.copy(sign.what.data(), sign.what.size() - 1);
  return sign;
}

Vigil::Vigil(int ranks, double limit_seconds, double now)
    : limit_(limit_seconds), ranks_(static_cast<std::size_t>(ranks), Rank{{}, now, now}) {}

void Vigil::hear(int rank, const Sign& sign, double now) {
  Rank& its = ranks_[static_cast<std::size_t>(rank)];
  its.heard = now;
  if (sign.moved != its.sign.moved) its.moved = now;
  its.sign = sign;
}

bool Vigil::any_lives(double now) const {
  return std::ranges::any_of(ranks_, [&](const Rank& rank) {
    return now - rank.heard < limit_ && now - rank.moved < std::max(limit_, rank.sign.patience);
  });
}

double Vigil::overdue(int rank, double now) const {
  const Rank& its = ranks_[static_cast<std::size_t>(rank)];
  return its.sign.patience > 0 && now - its.moved >= its.sign.patience ? now - its.moved : 0;
}

std::string Vigil::known_of(int rank, double now) const {
  const Rank& its = ranks_[static_cast<std::size_t>(rank)];
  if (now - its.heard >= limit_) return fmt::format("silent for {:.0f} s", now - its.heard);
  if (its.sign.patience > 0)
    return fmt::format("for {:.0f} s no further in {}", now - its.moved, its.sign.what.data());
  return {};
}

}  // namespace muster
