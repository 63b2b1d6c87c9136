// The speed of collectives by size, told as nccl-tests tell it, so that figures can be laid side by side:
//
//   algbw = size / time    busbw = algbw * 2 (n - 1) / n for all_reduce, algbw * (n - 1) / n for the others
//
// size: what all_reduce reduces; what a rank of reduce_scatter starts from, sends in all_to_all and ends with in
// all_gather. busbw is what each rank's link carries each way, whatever the number of ranks n.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

struct CollectiveSpeed {
  std::string collective;
  int ranks = 1;
  std::uint64_t bytes = 0;
  double seconds = 0;  // of the slowest rank
  double algbw() const { return static_cast<double>(bytes) / seconds; }
  double busbw() const;
};

// 1 KiB to 64 MiB, each four times the one before.
std::vector<std::uint64_t> collective_sizes();

// Collective; the same on all ranks. `comm` joins the ranks' devices. A size is rounded down so that every rank's
// piece is as large, a whole number of floats.
std::vector<CollectiveSpeed> bench_comm(Communicator& comm, Machine& machine,
                                        std::span<const std::uint64_t> sizes);

}  // namespace muster
