// The speed of every op of a training plan by itself, and of the kernels over flat spaces, beside its ceiling: the
// rate of matrix products that the device reaches, or the bandwidth of a copy, whichever limits it.
//
// Each run of an op finds its tensors in memory and not in the cache: it has a set of its own, or so many sets take
// turns that they fill the cache four times.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/graph/plan.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

struct OpSpeed {
  std::string op;
  std::string shapes;      // of its inputs and outputs: "bf16[4096, 768] bf16[768, 768] -> bf16[4096, 768]"
  std::int64_t calls = 0;  // in one micro-batch; 0: outside of it
  double seconds = 0;      // median of one call
  double flops = 0, bytes = 0;  // of one call, by Op::cost
  bool by_products = false;     // the rate of products limits it, not the bandwidth
  double share = 0;             // the least time that the ceiling allows / seconds
};

struct Ceilings {
  double matrix_peak = 0;  // FLOP/s
  double bandwidth = 0;    // bytes/s
};

// Each distinct op and shape of the plan, in the order of its first call, then the flat kernels. `cache_bytes`: of the
// last level.
std::vector<OpSpeed> bench_ops(const Plan& plan, Machine& machine, const Ceilings& ceilings,
                               std::uint64_t cache_bytes);

}  // namespace muster
