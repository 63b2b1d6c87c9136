// A device, its kernels and a stream of it: what tests run on that hold for every backend.
#pragma once

#include <gtest/gtest.h>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/device.hpp"
#include "model/backend.hpp"

namespace muster::testing {

class TestDevice {
 public:
  explicit TestDevice(DeviceKind kind)
      : device_(kind == DeviceKind::cuda ? cuda_device(0) : cpu_device()),
        backend_((device_->use(), backend_of(*device_))),
        stream_(device_->make_stream(StreamPriority::normal)) {}

  DeviceKind kind() const { return device_->kind(); }
  const Backend& backend() const { return backend_; }
  Stream& stream() { return *stream_; }
  Buffer buffer(std::uint64_t bytes) { return {account_, MemoryKind::activations, bytes, device_->memory()}; }

  // Runs work(native stream) and waits for it.
  template <class Work>
  void run(Work&& work) {
    stream_->enqueue([&](NativeStream native) { work(native); });
    stream_->synchronize();
  }

 private:
  std::unique_ptr<Device> device_;
  Backend backend_;
  std::unique_ptr<Stream> stream_;
  MemoryAccount account_;
};

// Values in the device's memory, as long as this lives.
template <class T>
class OnDevice {
 public:
  OnDevice(TestDevice& device, std::span<const T> values)
      : device_(device), count_(values.size()), buffer_(device.buffer(values.size_bytes())) {
    device_.stream().copy(buffer_.data(), values.data(), values.size_bytes());
    device_.stream().synchronize();
  }
  OnDevice(TestDevice& device, const std::vector<T>& values) : OnDevice(device, std::span<const T>(values)) {}
  OnDevice(TestDevice& device, std::size_t count) : OnDevice(device, std::vector<T>(count)) {}

  std::span<T> span() const { return buffer_.as<T>().first(count_); }
  T* data() const { return span().data(); }
  std::vector<T> values() const {
    std::vector<T> values(count_);
    device_.stream().copy(values.data(), buffer_.data(), count_ * sizeof(T));
    device_.stream().synchronize();
    return values;
  }

 private:
  TestDevice& device_;
  std::size_t count_;
  Buffer buffer_;
};

// The backends that are compiled in. Where a GPU's has no GPU to run on, its tests are skipped.
inline std::vector<DeviceKind> compiled_backends() {
  std::vector<DeviceKind> kinds = {DeviceKind::cpu};
  if (MUSTER_HAS_CUDA) kinds.push_back(DeviceKind::cuda);
  return kinds;
}
inline std::string test_name_of(DeviceKind kind) { return kind == DeviceKind::cuda ? "Cuda" : "Cpu"; }
inline bool has_device(DeviceKind kind) { return kind == DeviceKind::cpu || cuda_device_count() > 0; }

}  // namespace muster::testing
