// A keyed permutation of 0 .. n-1 in constant memory: any element at once, no list of them.
//
// An alternating Feistel network over w = ceil(log2 n) bits, split into a left half of floor(w/2) bits and a
// right half of ceil(w/2): in round r one half is XORed with the low bits of F(key, r, other half), the
// halves taking turns. Each round is undone by itself, so the whole permutes 0 .. 2^w - 1; a result >= n is
// sent through again (cycle walking), fewer than two passes on average since 2^w < 2n. Sources: Luby,
// Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988; Black, Rogaway,
// "Ciphers with arbitrary finite domains", CT-RSA 2002 (cycle walking); F is the finaliser of SplitMix64
// (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#pragma once

#include <bit>
#include <cstdint>

#include "core/error.hpp"

namespace muster {

constexpr std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

class Permutation {
 public:
  // Of 0 .. count - 1, for count in 1 .. 2^63. Keys that differ anywhere give unrelated permutations.
  Permutation(std::uint64_t count, std::uint64_t seed, std::uint64_t stream, std::uint64_t number)
      : count_(count) {
    check(count >= 1 && count <= std::uint64_t{1} << 63, "a permutation of nothing or of too much");
    const int bits = static_cast<int>(std::bit_width(count - 1));
    left_bits_ = bits / 2;
    right_bits_ = bits - left_bits_;
    key_ = mix64(seed + golden);
    key_ = mix64(key_ + stream + golden);
    key_ = mix64(key_ + number + golden);
  }

  std::uint64_t count() const { return count_; }

  std::uint64_t operator()(std::uint64_t index) const {
    do index = once(index);
    while (index >= count_);
    return index;
  }

 private:
  static constexpr std::uint64_t golden = 0x9e3779b97f4a7c15ull;
  static constexpr int rounds = 8;

  std::uint64_t once(std::uint64_t value) const {
    std::uint64_t left = value >> right_bits_, right = value & mask(right_bits_);
    for (int round = 0; round < rounds; round += 2) {
      left ^= scramble(round, right) & mask(left_bits_);
      right ^= scramble(round + 1, left) & mask(right_bits_);
    }
    return left << right_bits_ | right;
  }
  std::uint64_t scramble(int round, std::uint64_t half) const {
    return mix64(half + key_ + golden * static_cast<std::uint64_t>(round + 1));
  }
  static std::uint64_t mask(int bits) { return (std::uint64_t{1} << bits) - 1; }

  std::uint64_t count_;
  int left_bits_ = 0, right_bits_ = 0;
  std::uint64_t key_ = 0;
};

}  // namespace muster
