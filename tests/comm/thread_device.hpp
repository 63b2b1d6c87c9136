// A device of the host's memory whose streams have threads of their own and pause at random: work that is not ordered
// by events runs in any order, and ThreadSanitizer sees it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "core/device.hpp"
#include "core/host.hpp"
#include "core/philox.hpp"

namespace muster {

class ThreadDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::cpu; }
  std::string name() const override { return "threads"; }
  std::string fingerprint() const override { return name(); }
  const Memory& memory() const override { return host_memory(); }
  const Memory& staging() const override { return host_memory(); }
  std::uint64_t available_bytes() const override { return available_host_bytes(); }
  std::uint64_t held_bytes() const override { return resident_bytes(); }

  // Pauses of 0 to 200 us before every fourth piece of work.
  std::unique_ptr<Stream> make_stream(StreamPriority) const override {
    return std::make_unique<ThreadStream>([drawn = std::uint32_t{0}]() mutable {
      const Philox4 random = philox({drawn++, 0, 0, 0}, 1);
      if (random[0] % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random[1] % 200));
    });
  }
};

}  // namespace muster
