// GPUs: their memory and their streams.
#include "core/device.hpp"

#include <algorithm>
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

bool is_page_aligned(const std::byte* data) {
  return reinterpret_cast<std::uintptr_t>(data) % Buffer::alignment == 0;
}

// Null when there is none left, which the runtime would otherwise remember as a failure.
std::byte* allocated(cudaError_t result, void* data) {
  if (result == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  check_cuda(result, "allocating");
  return static_cast<std::byte*>(data);
}

class DeviceMemory final : public Memory {
 public:
  explicit DeviceMemory(int ordinal) : ordinal_(ordinal), name_(fmt::format("GPU {}", ordinal)) {}

  std::byte* allocate(std::uint64_t bytes) const override {
    use();
    std::byte* data = take(bytes);
    // cudaMalloc promises 256 bytes; what it gives is a multiple of a page in all but small allocations.
    if (data != nullptr && !is_page_aligned(data)) {
      check_cuda(cudaFree(data), "freeing");
      data = take_aligned(bytes);
    }
    if (data == nullptr) return nullptr;
    // Our streams wait for no other, so the zeros must be there before the pointer is.
    check_cuda(cudaMemset(data, 0, bytes), "clearing memory");
    check_cuda(cudaStreamSynchronize(nullptr), "clearing memory");
    return data;
  }

  void release(std::byte* data, std::uint64_t) const override {
    note_cuda(cudaSetDevice(ordinal_), "choosing a GPU");
    note_cuda(cudaFree(start_of(data)), "freeing");
  }

  std::string_view name() const override { return name_; }

 private:
  void use() const { check_cuda(cudaSetDevice(ordinal_), "choosing a GPU"); }

  static std::byte* take(std::uint64_t bytes) {
    void* data = nullptr;
    const cudaError_t result = cudaMalloc(&data, bytes);
    return allocated(result, data);
  }

  std::byte* take_aligned(std::uint64_t bytes) const {
    std::byte* start = take(bytes + Buffer::alignment);
    if (start == nullptr) return nullptr;
    std::byte* data =
        start + (Buffer::alignment - reinterpret_cast<std::uintptr_t>(start) % Buffer::alignment);
    const std::lock_guard lock(mutex_);
    starts_[data] = start;
    return data;
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
  std::string name_;
  mutable std::mutex mutex_;
  mutable std::map<std::byte*, std::byte*> starts_;  // of what had to be aligned, by where it is used from
};

class PinnedMemory final : public Memory {
 public:
  explicit PinnedMemory(int ordinal) : ordinal_(ordinal) {}

  std::byte* allocate(std::uint64_t bytes) const override {
    check_cuda(cudaSetDevice(ordinal_), "choosing a GPU");
    void* pinned = nullptr;
    const cudaError_t result = cudaHostAlloc(&pinned, bytes, cudaHostAllocPortable);
    std::byte* data = allocated(result, pinned);
    if (data == nullptr) return nullptr;
    check(is_page_aligned(data), "pinned memory is not aligned to a page");
    std::memset(data, 0, bytes);
    return data;
  }
  void release(std::byte* data, std::uint64_t) const override {
    note_cuda(cudaFreeHost(data), "freeing pinned memory");
  }
  std::string_view name() const override { return "the system (pinned memory)"; }

 private:
  int ordinal_;
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
  std::uint64_t available_bytes() const override {
    use();
    std::size_t available = 0, total = 0;
    check_cuda(cudaMemGetInfo(&available, &total), "asking for a GPU's memory");
    return available;
  }
  void use() const override { check_cuda(cudaSetDevice(ordinal_), "choosing a GPU"); }

 private:
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
