// The ranks of a run, as its steps reach them.
#pragma once

#include <cstdint>
#include <string_view>

#include "comm/communicator.hpp"

namespace muster {

// `host` joins their hosts' memory, `device` that of their devices. On CPUs they are one.
struct Ranks {
  Communicator& host;
  Communicator& device;
  std::uint64_t staging_bytes = 0;  // of the host's memory that `device` takes
  std::string_view joined = {};     // how the devices are joined, for the log

  bool devices_apart() const { return &device != &host; }
};

}  // namespace muster
