// The speed of collectives by size, told as nccl-tests tell it, so that figures can be laid side by side:
//
//   algbw = size / time    busbw = algbw * 2 (n - 1) / n for all_reduce, algbw * (n - 1) / n for the others
//
// size: what all_reduce reduces; what a rank of reduce_scatter starts from, sends in all_to_all and ends with in
// all_gather. busbw is what each rank's link carries each way, whatever the number of ranks n.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/memory.hpp"
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

// "all_to_all", "all_gather", "all_reduce", and "reduce_scatter" where the communicator sums.
std::vector<std::string> collectives_of(const Communicator& comm);

// One collective, several times in a row, each after the one before. `comm` joins the ranks' devices. The size is
// rounded down so that every rank's piece is as large, a whole number of floats. All of it is collective.
class CollectiveRow {
 public:
  CollectiveRow(Communicator& comm, Machine& machine, std::string collective, std::uint64_t bytes,
                int length);

  int ranks() const { return comm_.size(); }
  std::uint64_t bytes() const { return piece_ * static_cast<std::uint64_t>(comm_.size()); }
  double run();  // seconds of one collective of this row
  void measure() { seconds_.push_back(run()); }
  // Of one collective: the median of what was measured, on the slowest rank.
  double seconds() const;

 private:
  Event start(const Event& after);
  std::vector<std::span<std::byte>> pieces(const Buffer& whole) const;

  Communicator& comm_;
  Machine& machine_;
  std::string collective_;
  MemoryAccount account_;  // of its own: gone before a run takes its memory
  int length_;
  std::uint64_t piece_;
  Buffer own_, other_;
  std::vector<double> seconds_;
};

// Collective; the same on all ranks: of several runs of a row.
CollectiveSpeed measure_collective(Communicator& comm, Machine& machine, const std::string& collective,
                                   std::uint64_t bytes);

}  // namespace muster
