// What one rank computes on: a device, its kernels, its compute stream, and the accounts of the memory taken.
#pragma once

#include <memory>
#include <string>

#include "core/device.hpp"
#include "core/memory.hpp"
#include "core/stream.hpp"
#include "model/backend.hpp"

namespace muster {

class Machine {
 public:
  // `host` counts what is taken of the host's memory, and on CPUs all. Another compute stream than the
  // device's own may be given.
  Machine(std::unique_ptr<Device> device, MemoryAccount& host, std::unique_ptr<Stream> stream = nullptr)
      : device_(std::move(device)),
        backend_(backend_of(*device_)),
        host_(host),
        stream_(stream ? std::move(stream) : device_->make_stream(StreamPriority::normal)) {}

  const Device& device() const { return *device_; }
  const Backend& backend() const { return backend_; }
  const FlatKernels& flat() const { return backend_.flat; }
  Stream& stream() const { return *stream_; }
  // What bits depend on: the type of device, and the libraries that compute on it.
  std::string fingerprint() const {
    const std::string device = device_->fingerprint();
    return backend_.context ? device + ", " + backend_.context->libraries() : device;
  }
  bool is_cpu() const { return device_->kind() == DeviceKind::cpu; }

  MemoryAccount& account() { return is_cpu() ? host_ : own_; }  // of the device's memory
  MemoryAccount& host_account() { return host_; }

  Buffer take(MemoryKind kind, std::uint64_t bytes) {
    return Buffer(account(), kind, bytes, device_->memory());
  }
  // Host memory that the stream copies from or to.
  Buffer take_staging(MemoryKind kind, std::uint64_t bytes) {
    return Buffer(host_, kind, bytes, device_->staging());
  }

 private:
  MemoryAccount own_;
  std::unique_ptr<Device> device_;
  Backend backend_;
  MemoryAccount& host_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace muster
