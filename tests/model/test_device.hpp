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

// The GPU's kernels, or the CPU's of one instruction set.
struct TestBackend {
  DeviceKind kind = DeviceKind::cpu;
  InstructionSet set = instruction_set();

  const KernelTable& kernels() const { return kind == DeviceKind::cpu ? cpu_kernels(set) : kernels_of(kind); }
};

class TestDevice {
 public:
  explicit TestDevice(DeviceKind kind) : TestDevice(TestBackend{kind}) {}
  explicit TestDevice(TestBackend backend)
      : device_(backend.kind == DeviceKind::cuda ? cuda_device(0) : cpu_device()),
        backend_(make_backend(*device_, backend)),
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
  static Backend make_backend(const Device& device, TestBackend backend) {
    device.use();
    if (backend.kind == DeviceKind::cuda) return backend_of(device);
    return {cpu_kernels(backend.set), cpu_flat_kernels(backend.set), nullptr};
  }

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

// The backends that are compiled in, the CPU's for each instruction set that has kernels, up to the one in use.
// Where a GPU's has no GPU to run on, its tests are skipped.
inline std::vector<TestBackend> compiled_backends() {
  std::vector<TestBackend> backends;
  for (const InstructionSet set : instruction_sets_of_processor())
    if (set <= instruction_set() && set != InstructionSet::amx) backends.push_back({DeviceKind::cpu, set});
  if (MUSTER_HAS_CUDA) backends.push_back({DeviceKind::cuda});
  return backends;
}
inline std::string test_name_of(TestBackend backend) {
  return backend.kind == DeviceKind::cuda ? "Cuda" : "Cpu_" + std::string(spelling(backend.set));
}
inline bool has_device(const TestBackend& backend) {
  return backend.kind == DeviceKind::cpu || cuda_device_count() > 0;
}

}  // namespace muster::testing
