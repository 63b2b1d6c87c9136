// The speed of every op of a training plan by itself, and of the kernels over flat spaces, beside its ceiling: the
// rate of matrix products that the device could reach, or a copy that moves as many bytes, whichever limits it.
//
// A copy of as many bytes, because a small op never waits until memory has what it wrote: that stays in the cache, and beside
// the bandwidth of memory it would seem faster than light.
//
// Each run of an op finds its tensors in memory and not in the cache: it has a set of its own, or so many sets take
// turns that they fill the cache four times.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/graph/plan.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

// What keeps an op from being faster: products, or moving memory; `cache` where all that it moves has room in the last
// level of the cache.
enum class Limit : std::uint8_t { products, copy, cache };
std::string_view name_of(Limit limit);

struct OpSpeed {
  std::string op;
  std::string shapes;      // of its inputs and outputs: "bf16[4096, 768] bf16[768, 768] -> bf16[4096, 768]"
  std::int64_t calls = 0;  // in one micro-batch; 0: outside of it
  double seconds = 0;      // median of one call
  double flops = 0, bytes = 0;  // of one call, by Op::cost
  double copy = 0;              // bytes/s of a copy that moves as many
  Limit limit = Limit::copy;
  double share = 0;  // the least time that the ceiling allows / seconds
};

struct Ceilings {
  double matrix_peak = 0;                    // FLOP/s
  double memory_bandwidth = 0;               // bytes/s, read and written, of a copy that no cache holds
  std::function<double(double bytes)> copy;  // the same of one that moves `bytes`
};

// Each distinct op and shape of the plan, in the order of its first call, then the flat kernels. `cache_bytes`: of the
// last level.
std::vector<OpSpeed> bench_ops(const Plan& plan, Machine& machine, const Ceilings& ceilings,
                               std::uint64_t cache_bytes);

}  // namespace muster
