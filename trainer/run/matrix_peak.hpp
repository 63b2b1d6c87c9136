// The rate of matrix products that this device reaches: what `sol` divides by.
#pragma once

#include "comm/communicator.hpp"
#include "model/config.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

// FLOP/s of one rank while all ranks of its host multiply at once; the same value on every rank (the least),
// or the best that rank 0's host has reached before. Takes half a second, and less where other runs have measured it.
double measure_matrix_peak(Precision precision, Communicator& comm, Machine& machine);

}  // namespace muster
