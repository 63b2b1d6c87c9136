// A device: where a model's tensors lie and its kernels run. One process drives one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/memory.hpp"
#include "core/stream.hpp"

namespace muster {

enum class DeviceKind : std::uint8_t { cpu, cuda };

enum class StreamPriority : std::uint8_t { normal, high };

class Device {
 public:
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  virtual std::string name() const = 0;  // "cpu", "NVIDIA H200"
  // Of what bits depend on: the device and the versions of its libraries.
  virtual std::string fingerprint() const = 0;
  // For tensors. On CPUs the host's own.
  virtual const Memory& memory() const = 0;
  // Host memory from and to which the device copies while it computes: pinned.
  virtual const Memory& staging() const = 0;
  virtual std::unique_ptr<Stream> make_stream(StreamPriority priority) const = 0;
  // What memory() has left for this process.
  virtual std::uint64_t available_bytes() const = 0;
  // What is held of memory(): on CPUs by this process (resident_bytes), of a GPU by all that use it.
  virtual std::uint64_t held_bytes() const = 0;
  // Where the host's system knows it, "0000:1B:00.0"; empty for CPUs.
  virtual std::string pci_bus_id() const { return {}; }
  // Of the calling thread; every thread that appends to streams of this device calls it first.
  virtual void use() const {}
};

std::unique_ptr<Device> cpu_device();

// GPUs that this process sees; 0 without a driver, or when built without CUDA.
int cuda_device_count();
// GPU `ordinal`. Throws UserError that says what is missing: the build, the driver, the GPU.
std::unique_ptr<Device> cuda_device(int ordinal);

}  // namespace muster
