// What every communicator does, as a table that drives all backends: the ranks as threads (under
// ThreadSanitizer) and as processes started by mpirun, in the memory of hosts and of devices.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "comm/communicator.hpp"
#include "tests/comm/place.hpp"

namespace muster {

struct Behaviour {
  std::string name;                  // a sentence, with underscores
  std::function<void(Place&)> show;  // run by every rank; throws when it does not hold
  bool of_hosts = false;             // goes through host memory, whatever the place
};

std::span<const Behaviour> behaviours();
std::vector<Behaviour> behaviours_of_order();  // those of order.cpp, which are among them

#define BEHAVIOUR(name) \
  Behaviour { #name, name }
#define BEHAVIOUR_OF_HOSTS(name) \
  Behaviour { #name, name, true }

// A test of one: which, on how many ranks, and the seed of the ranks' delays (0: none).
using Case = std::tuple<std::size_t, int, std::uint64_t>;
std::string name_of_case(const Case& one);

}  // namespace muster
