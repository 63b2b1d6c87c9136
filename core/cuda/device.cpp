// GPUs: their memory and their streams.
#include "core/device.hpp"

#include <cstring>
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <map>
#include <mutex>

#include "core/cuda/check.hpp"
#include "core/cuda/stream.hpp"
#include "core/error.hpp"

namespace muster {
namespace {

// Memory of the runtime from a page on. The runtime itself promises 256 bytes: its small allocations share pages.
class RuntimeMemory : public Memory {
 public:
  void release(std::byte* data, std::uint64_t) const override {
    note_cuda(cudaSetDevice(ordinal_), "choosing a GPU");
    note_cuda(give(start_of(data)), "freeing");
  }

 protected:
  explicit RuntimeMemory(int ordinal) : ordinal_(ordinal) {}

  std::byte* take_aligned(std::uint64_t bytes) const {
    check_cuda(cudaSetDevice(ordinal_), "choosing a GPU");
    std::byte* data = allocated(bytes);
    if (data == nullptr || beyond_page(data) == 0) return data;
    check_cuda(give(data), "freeing");
    std::byte* start = allocated(bytes + Buffer::alignment);
    if (start == nullptr) return nullptr;
    data = start + (Buffer::alignment - beyond_page(start));
    const std::lock_guard lock(mutex_);
    starts_[data] = start;
    return data;
  }

 private:
  virtual cudaError_t take(void** data, std::uint64_t bytes) const = 0;
  virtual cudaError_t give(void* data) const = 0;

  static std::uintptr_t beyond_page(const std::byte* data) {
    return reinterpret_cast<std::uintptr_t>(data) % Buffer::alignment;
  }

  // Null when there is none left, which the runtime would otherwise remember as a failure.
  std::byte* allocated(std::uint64_t bytes) const {
    void* data = nullptr;
    const cudaError_t result = take(&data, bytes);
    if (result == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      return nullptr;
    }
    check_cuda(result, "allocating");
    return static_cast<std::byte*>(data);
  }

  std::byte* start_of(std::byte* data) const {
    const std::lock_guard lock(mutex_);
    const auto found = starts_.find(data);
    if (found == starts_.end()) return data;
    std::byte* start = found->second;
    starts_.erase(found);
    return start;
  }

  int ordinal_;
  mutable std::mutex mutex_;
  mutable std::map<std::byte*, std::byte*> starts_;  // of what had to be aligned, by where it is used from
};

class DeviceMemory final : public RuntimeMemory {
 public:
  explicit DeviceMemory(int ordinal) : RuntimeMemory(ordinal), name_(fmt::format("GPU {}", ordinal)) {}

  std::byte* allocate(std::uint64_t bytes) const override {
    std::byte* data = take_aligned(bytes);
    if (data == nullptr) return nullptr;
    // Our streams wait for no other, so the zeros must be there before the pointer is.
    check_cuda(cudaMemset(data, 0, bytes), "clearing memory");
    check_cuda(cudaStreamSynchronize(nullptr), "clearing memory");
    return data;
  }

  std::string_view name() const override { return name_; }

 private:
  cudaError_t take(void** data, std::uint64_t bytes) const override { return cudaMalloc(data, bytes); }
  cudaError_t give(void* data) const override { return cudaFree(data); }

  std::string name_;
};

class PinnedMemory final : public RuntimeMemory {
 public:
  explicit PinnedMemory(int ordinal) : RuntimeMemory(ordinal) {}

  std::byte* allocate(std::uint64_t bytes) const override {
    std::byte* data = take_aligned(bytes);
    if (data != nullptr) std::memset(data, 0, bytes);
    return data;
  }
  std::string_view name() const override { return "the system (pinned memory)"; }

 private:
  cudaError_t take(void** data, std::uint64_t bytes) const override {
    return cudaHostAlloc(data, bytes, cudaHostAllocPortable);
  }
  cudaError_t give(void* data) const override { return cudaFreeHost(data); }
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal), memory_(ordinal), staging_(ordinal) {
    use();
    check_cuda(cudaGetDeviceProperties(&properties_, ordinal_), "asking for a GPU's properties");
    check_cuda(cudaRuntimeGetVersion(&runtime_), "asking for CUDA's version");
    check_cuda(cudaDeviceGetStreamPriorityRange(&least_priority_, &greatest_priority_),
               "asking for priorities");
  }

  DeviceKind kind() const override { return DeviceKind::cuda; }
  std::string name() const override { return properties_.name; }
  std::string fingerprint() const override {
    return fmt::format("{}, compute capability {}.{}, CUDA {}.{}", properties_.name, properties_.major,
                       properties_.minor, runtime_ / 1000, runtime_ % 1000 / 10);
  }
  std::string pci_bus_id() const override {
    return fmt::format("{:04x}:{:02x}:{:02x}.0", properties_.pciDomainID, properties_.pciBusID,
                       properties_.pciDeviceID);
  }
  const Memory& memory() const override { return memory_; }
  const Memory& staging() const override { return staging_; }
  std::unique_ptr<Stream> make_stream(StreamPriority priority) const override {
    use();
    return std::make_unique<CudaStream>(priority == StreamPriority::high ? greatest_priority_
                                                                         : least_priority_);
  }
  std::uint64_t available_bytes() const override { return memory_left().available; }
  std::uint64_t held_bytes() const override {
    const MemoryLeft left = memory_left();
    return left.total - left.available;
  }
  void use() const override { check_cuda(cudaSetDevice(ordinal_), "choosing a GPU"); }

 private:
  struct MemoryLeft {
    std::size_t available = 0, total = 0;
  };
  MemoryLeft memory_left() const {
    use();
    MemoryLeft left;
    check_cuda(cudaMemGetInfo(&left.available, &left.total), "asking for a GPU's memory");
    return left;
  }

  int ordinal_;
  DeviceMemory memory_;
  PinnedMemory staging_;
  cudaDeviceProp properties_{};
  int runtime_ = 0;
  int least_priority_ = 0;
  int greatest_priority_ = 0;
};

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

// Why the runtime counts no GPUs, and what to do.
UserError no_gpu(cudaError_t reason) {
  int driver = 0, runtime = 0;
  check_cuda(cudaDriverGetVersion(&driver), "asking for the driver's version");
  check_cuda(cudaRuntimeGetVersion(&runtime), "asking for CUDA's version");
  if (driver == 0)
    return UserError("this machine has no NVIDIA driver: install one, or set run.device = \"cpu\"");
  if (reason == cudaErrorInsufficientDriver)
    return UserError(
        "the NVIDIA driver is too old: it serves CUDA {}, this muster needs {}: update the driver, or set "
        "run.device "
        "= \"cpu\"",
        version(driver), version(runtime));
  return UserError(
      "this process sees no GPU ({}): look at nvidia-smi and CUDA_VISIBLE_DEVICES, or set run.device = "
      "\"cpu\"",
      cudaGetErrorString(reason));
}

}  // namespace

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

std::unique_ptr<Device> cuda_device(int ordinal) {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  static_cast<void>(cudaGetLastError());
  if (result != cudaSuccess || count == 0) throw no_gpu(result == cudaSuccess ? cudaErrorNoDevice : result);
  if (ordinal < 0 || ordinal >= count)
    throw UserError(
        "there is no GPU {}: this process sees {} of them, counted from 0: start fewer ranks on this host, "
        "or look at "
        "CUDA_VISIBLE_DEVICES",
        ordinal, count);
  return std::make_unique<CudaDevice>(ordinal);
}

}  // namespace muster
