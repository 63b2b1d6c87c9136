// Which sample is read at a global slot: sources mixed by weight, each in an order of its own for each epoch.
//
// Slots are cut into blocks of 4,096. In each block source k gets a fixed number of slots, its quota: its
// share of the weights, rounded by largest remainder. The slots of a block are dealt out in an order permuted
// by (seed, block). The n-th sample that a source gives, n = block x quota + how many it gave before in the
// block, belongs to its epoch n / M and is the sample permuted by (seed, source, epoch) at n mod M, for M
// samples in the source. So any slot is found at once, and nothing depends on how slots are divided over
// ranks.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "data/permutation.hpp"

namespace muster {

class Sampler {
 public:
  static constexpr std::uint64_t block = 4096;

  struct Source {
    std::uint64_t samples = 0;
    double weight = 1;
  };
  struct Sample {
    std::uint32_t source = 0;
    std::uint64_t epoch = 0;
    std::uint64_t index = 0;  // within the source, 0 .. samples - 1
  };

  // UserError if a weight is not positive or too small to get a slot of a block.
  Sampler(std::span<const Source> sources, std::uint64_t seed);

  // The sample at a slot. Fast for slots in any order within a block.
  Sample at(std::uint64_t slot);

 private:
  // The n-th sample that a source gives.
  Sample nth(std::uint32_t source, std::uint64_t n);
  void deal(std::uint64_t number);

  struct State {
    std::uint64_t samples = 0;
    std::uint64_t quota = 0;
    std::uint64_t epoch = 0;
    Permutation order;  // of that epoch
  };
  struct Turn {
    std::uint16_t source = 0;
    std::uint16_t rank = 0;
  };

  std::uint64_t seed_;
  std::vector<State> sources_;
  std::optional<std::uint64_t> dealt_;  // the block that turns_ holds
  std::array<Turn, block> turns_{};
};

}  // namespace muster
