// How the benchmarks measure: times by the device's own clock, and the ceilings that they are compared with.
#pragma once

#include <cstdint>
#include <functional>
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

// Bytes/s, read and written, of that copy: the ceiling of what only moves memory.
double measure_copy_bandwidth(Machine& machine);

}  // namespace muster
