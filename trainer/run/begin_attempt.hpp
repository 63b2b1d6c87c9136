// A run belongs to one start of the program, an attempt: a second one, made by mistake, would end the first and lose its
// steps since the last checkpoint.
#pragma once

#include <chrono>
#include <cstdint>

#include "comm/communicator.hpp"
#include "trainer/config/config.hpp"
#include "trainer/run_folder.hpp"

namespace muster {

// Collective. Waits while the newest attempt lives on the host of any rank, because ranks outlive a killed mpirun by some
// seconds; throws UserError when it still does after `patience`. One that is dead, or on another host, is no hindrance.
// Returns the number of the newest one, 0 without any.
std::int64_t refuse_while_another_lives(Communicator& comm, const RunFolder& folder,
                                        std::chrono::milliseconds patience = std::chrono::seconds(10));

// Takes the run's folder, in which attempt `newest` was the last one; throws UserError where another start has taken it
// meanwhile.
Attempt begin_alone(const RunFolder& folder, std::int64_t newest, std::int64_t of_checkpoints);

// Collective. Takes the run's folder, which is made if missing: rank 0 takes the number, and from then on the attempt
// before this one is over.
Attempt begin_attempt(Communicator& comm, const RunFolder& folder, const RunConfig& config);

}  // namespace muster
