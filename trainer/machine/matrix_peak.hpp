// The rate of matrix products that this device could reach: what `sol` divides by.
#pragma once

#include <string>

#include "comm/communicator.hpp"
#include "model/graph/precision.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

struct MatrixPeak {
  double flops_per_s =
      0;               // of one rank: their mean, so that this times the ranks is what all of them could do
  std::string remark;  // one line, where others use the cores now; else empty
};

// Collective; the same on every rank. It takes a fifth of a second, and less where other runs have measured it: the best
// that a host has reached counts, since a busy moment now must not make later steps look faster than light.
//
// On CPUs: the rate of multiply-adds in registers (core/register_loop.hpp) of a core, while all threads of all ranks
// compute, times the cores of a rank: a core for each of its threads, or its share of fewer. No kernel takes part, so none
// can be faster. On GPUs: the rate of a large product of the device's library, of the slowest rank.
MatrixPeak measure_matrix_peak(Precision precision, Communicator& comm, Machine& machine);

// Speed of light: the least time that the matrix products of a step could take on all ranks / the time that it took.
// sol = flops / (peak x ranks x seconds), `flops` being those of a step of all ranks as Op::cost counts them: what is
// computed again counts once. It lies below 1 but for a defect: a step does not only multiply.
double speed_of_light(double flops, double peak, int ranks, double seconds);

}  // namespace muster
