// What every communicator does, as a table that drives all backends: the ranks as threads (under
// ThreadSanitizer) and the ranks as processes over MPI.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "comm/communicator.hpp"

namespace muster {

struct Behaviour {
  std::string name;                         // a sentence, with underscores
  std::function<void(Communicator&)> show;  // run by every rank; throws when it does not hold
};

std::span<const Behaviour> behaviours();

}  // namespace muster
