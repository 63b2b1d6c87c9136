// How the benchmarks measure: times by the device's own clock, and the ceilings that they are compared with.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "trainer/step/machine.hpp"

namespace muster {

double median(std::vector<double> values);

// Seconds of each of `times` runs of what `append` puts on the stream, the first run of all left out.
std::vector<double> seconds_of_runs(Stream& stream, int times, const std::function<void()>& append);

// The device's last level of cache: what is larger comes from memory.
std::uint64_t last_level_cache(const Device& device);

// A copy from device memory to device memory that is four times as large as the cache, and leaves nothing else in it.
class CacheFlush {
 public:
  CacheFlush(Machine& machine, std::uint64_t cache_bytes);
  void append();
  std::uint64_t bytes() const { return from_.bytes(); }

 private:
  Machine& machine_;
  MemoryAccount account_;  // of its own: gone before a run takes its memory
  Buffer from_, to_;
};

// Bytes/s, read and written, of that copy: what a kernel that only moves memory is expected to reach.
double measure_copy_bandwidth(Machine& machine);

// Copies that no kernel shares: the ceiling of what only moves memory. All threads take part; what is read lies in memory
// and in no cache. On CPUs by whatever is faster, stores that leave the lines in the cache or such as go around it.
class FastestCopy {
 public:
  FastestCopy(Machine& machine, std::uint64_t cache_bytes);
  // Of a copy that moves so many: half of them read, half written; more than 8 times the cache count as that. Measured for
  // each power of two when it is first asked for, and between them on a line.
  double bytes_per_s(double bytes);

 private:
  double seconds(int logarithm);

  Machine& machine_;
  MemoryAccount account_;  // of its own: gone before a run takes its memory
  Buffer from_, to_;
  std::map<int, double> known_;  // seconds, by the logarithm of the bytes
};

}  // namespace muster
