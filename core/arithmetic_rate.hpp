// What arithmetic reaches on the cores of this process, and whether it has them to itself.
#pragma once

#include <vector>

#include "core/register_loop.hpp"

namespace muster {

struct ArithmeticRate {
  double per_core = 0;  // FLOP/s of a core that nobody else uses, while all threads compute
  double cores = 0;     // cores' worth of that which all threads together got
};

// Runs `loop` on all threads of the calling thread's loops (core/parallel.hpp) at once for `seconds`.
ArithmeticRate measure_arithmetic(const RegisterLoop& loop, double seconds);

// Of the seconds of many short runs, those of one that nothing disturbed: the median of the fastest quarter. Whoever
// shares a core takes it for milliseconds, so most runs of 0.1 ms are either undisturbed or few and slow; the fastest of
// all may owe that to the clock.
double undisturbed_seconds(std::vector<double> runs);

}  // namespace muster
