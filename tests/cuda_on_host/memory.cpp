// Memory of the CUDA runtime on the host. Each allocation ends at a guard page; a freed one is never given out again, so
// that late uses fault; new memory is NaN. A handler names the mistake behind a fault.
#include "tests/cuda_on_host/memory.hpp"

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/cuda_on_host/streams.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_on_host {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t granule = 256;  // what cudaMalloc aligns to
constexpr int fill = 0xff;            // NaN in every type

struct Allocation {
  std::byte* mapping = nullptr;
  std::size_t mapped = 0;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  int device = -1;  // -1: pinned host memory
  bool freed = false;

  std::byte* body() const { return mapping + page; }
  std::size_t body_bytes() const { return mapped - 2 * page; }
  bool on_device() const { return device >= 0; }
};

// Never destroyed: streams' threads and the fault handler outlive static objects.
struct Memory {
  std::mutex mutex;
  std::map<std::uintptr_t, Allocation> allocations;  // by data
  std::map<int, std::size_t> used;                   // by device
  int working = 0;                                   // streams, for the gate
  bool gate_open = true;
};
Memory& memory() {
  static auto& all = *std::make_unique<Memory>().release();
  return all;
}

int protection_key() {
  static const int key = setting("NO_KEYS", 0) != 0 ? -1 : pkey_alloc(0, PKEY_DISABLE_ACCESS);
  return key;
}

void allow_this_thread(bool allowed) { pkey_set(protection_key(), allowed ? 0 : PKEY_DISABLE_ACCESS); }

void protect(const Allocation& allocation, bool open) {
  if (!allocation.on_device() || allocation.freed) return;
  mprotect(allocation.body(), allocation.body_bytes(), open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

// The caller holds the mutex.
void set_gate(bool open) {
  if (memory().gate_open == open) return;
  memory().gate_open = open;
  for (const auto& [address, allocation] : memory().allocations) protect(allocation, open);
}

struct sigaction previous_action;

// Names the mistake; the fault then repeats itself under the handler that was there before (a sanitizer's, or none).
void on_fault(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const auto& [begin, allocation] : memory().allocations) {
    const auto mapping = reinterpret_cast<std::uintptr_t>(allocation.mapping);
    if (address < mapping || address >= mapping + allocation.mapped) continue;
    const auto body = reinterpret_cast<std::uintptr_t>(allocation.body());
    const bool outside = address < body || address >= body + allocation.body_bytes();
    const char* mistake = allocation.freed ? "use of freed memory"
                          : outside        ? "access outside of an allocation"
                                           : "the host touched device memory";
    char line[200];
    const int length =
        std::snprintf(line, sizeof line, "cuda_on_host: %s: %p lies at %td of %zu bytes allocated at %p\n",
                      mistake, info->si_addr, static_cast<std::byte*>(info->si_addr) - allocation.data,
                      allocation.bytes, static_cast<void*>(allocation.data));
    if (write(STDERR_FILENO, line, static_cast<std::size_t>(length)) < 0) break;
  }
  sigaction(SIGSEGV, &previous_action, nullptr);
}

void watch_faults() {
  static const bool watching = [] {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGSEGV, &action, &previous_action) == 0;
  }();
  static_cast<void>(watching);
}

std::size_t device_bytes() { return static_cast<std::size_t>(setting("MEMORY_MB", 4096)) << 20; }

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

cudaError_t allocate(void** out, std::size_t bytes, int device) {
  const Hidden hidden;
  if (capturing_forbids(nullptr)) return cudaErrorStreamCaptureUnsupported;
  const std::lock_guard lock(memory().mutex);
  watch_faults();
  *out = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (device >= 0 && memory().used[device] + bytes > device_bytes()) return cudaErrorMemoryAllocation;

  Allocation allocation;
  allocation.mapped = round_up(bytes, page) + 2 * page;
  void* mapping =
      mmap(nullptr, allocation.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return cudaErrorMemoryAllocation;
  allocation.mapping = static_cast<std::byte*>(mapping);
  allocation.bytes = bytes;
  allocation.device = device;
  allocation.data = allocation.body() + allocation.body_bytes() - round_up(bytes, granule);
  mprotect(allocation.body(), allocation.body_bytes(), PROT_READ | PROT_WRITE);
  std::memset(allocation.body(), fill, allocation.body_bytes());
#ifdef __SANITIZE_ADDRESS__
  std::byte* end = allocation.data + bytes;
  __asan_poison_memory_region(mapping, static_cast<std::size_t>(allocation.data - allocation.mapping));
  __asan_poison_memory_region(end, static_cast<std::size_t>(allocation.mapping + allocation.mapped - end));
#endif
  if (device >= 0) {
    memory().used[device] += bytes;
    if (protection_key() >= 0)
      pkey_mprotect(allocation.body(), allocation.body_bytes(), PROT_READ | PROT_WRITE, protection_key());
    else
      protect(allocation, memory().gate_open);
  }
  memory().allocations[reinterpret_cast<std::uintptr_t>(allocation.data)] = allocation;
  *out = allocation.data;
  return cudaSuccess;
}

// Small overruns stay inside the last granule, where no guard page sees them.
void check_margin(const Allocation& allocation) {
#ifndef __SANITIZE_ADDRESS__
  for (const std::byte* p = allocation.data + allocation.bytes;
       p < allocation.body() + allocation.body_bytes(); ++p)
    if (*p != std::byte{fill}) {
      std::fprintf(stderr, "cuda_on_host: bytes after an allocation of %zu bytes were overwritten\n",
                   allocation.bytes);
      std::abort();
    }
#else
  static_cast<void>(allocation);
#endif
}

// The caller holds the mutex.
Allocation* find(const void* data) {
  auto& all = memory().allocations;
  auto after = all.upper_bound(reinterpret_cast<std::uintptr_t>(data));
  if (after == all.begin()) return nullptr;
  Allocation& allocation = std::prev(after)->second;
  const bool inside = static_cast<const std::byte*>(data) < allocation.data + allocation.bytes;
  return inside && !allocation.freed ? &allocation : nullptr;
}

cudaError_t deallocate(void* data, bool device) {
  const Hidden hidden;
  if (data == nullptr) return cudaSuccess;
  if (capturing_forbids(nullptr)) return cudaErrorStreamCaptureUnsupported;
  const DeviceMemoryOpen open;
  const std::lock_guard lock(memory().mutex);
  Allocation* allocation = find(data);
  if (allocation == nullptr || allocation->data != data || allocation->on_device() != device)
    return cudaErrorInvalidValue;
  check_margin(*allocation);
  mmap(allocation->mapping, allocation->mapped, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(allocation->mapping, allocation->mapped);
#endif
  allocation->freed = true;
  if (device) memory().used[allocation->device] -= allocation->bytes;
  return cudaSuccess;
}

// Whether the bytes lie in one allocation of that kind, or, on the host, in memory that is not the runtime's.
bool lies(const void* data, std::size_t bytes, bool on_device) {
  const Hidden hidden;
  const std::lock_guard lock(memory().mutex);
  const Allocation* allocation = find(data);
  if (allocation == nullptr) return !on_device;
  const auto* end = static_cast<const std::byte*>(data) + bytes;
  return allocation->on_device() == on_device && end <= allocation->data + allocation->bytes;
}

void enter() {
  if (protection_key() >= 0) {
    allow_this_thread(true);
  } else {
    const Hidden hidden;
    const std::lock_guard lock(memory().mutex);
    ++memory().working;
    set_gate(true);
  }
}

void leave() {
  if (protection_key() >= 0) {
    allow_this_thread(false);
  } else {
    const Hidden hidden;
    const std::lock_guard lock(memory().mutex);
    --memory().working;
  }
}

bool is_in_bounds(const void* data, std::size_t bytes) {
  return lies(data, bytes, true) || lies(data, bytes, false);
}

}  // namespace

DeviceMemoryOpen::DeviceMemoryOpen() { enter(); }
DeviceMemoryOpen::~DeviceMemoryOpen() { leave(); }

DeviceMemoryClosed::DeviceMemoryClosed() {
  leave();
  close_idle_device_memory();
}
DeviceMemoryClosed::~DeviceMemoryClosed() { enter(); }

void close_idle_device_memory() {
  if (protection_key() >= 0) return;
  const Hidden hidden;
  const std::lock_guard lock(memory().mutex);
  if (memory().working == 0) set_gate(false);
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

extern "C" {

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  if (const int error = injected_failure("cudaMalloc", cudaErrorMemoryAllocation))
    return fail(static_cast<cudaError_t>(error));
  return fail(broken() != cudaSuccess ? broken() : allocate(data, bytes, current_device()));
}

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  if (const int error = injected_failure("cudaHostAlloc", cudaErrorMemoryAllocation))
    return fail(static_cast<cudaError_t>(error));
  return fail(broken() != cudaSuccess ? broken() : allocate(data, bytes, -1));
}

cudaError_t cudaMallocHost(void** data, std::size_t bytes) { return cudaHostAlloc(data, bytes, 0); }

// Both wait for all work, which may still use the memory.
cudaError_t cudaFree(void* data) {
  cudaDeviceSynchronize();
  return fail(deallocate(data, true));
}

cudaError_t cudaFreeHost(void* data) {
  cudaDeviceSynchronize();
  return fail(deallocate(data, false));
}

cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  const Hidden hidden;
  const std::lock_guard lock(memory().mutex);
  *total = device_bytes();
  *available = *total - memory().used[current_device()];
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  const Hidden hidden;
  const std::lock_guard lock(memory().mutex);
  const Allocation* allocation = find(data);
  *attributes = {};
  attributes->type = allocation == nullptr     ? cudaMemoryTypeUnregistered
                     : allocation->on_device() ? cudaMemoryTypeDevice
                                               : cudaMemoryTypeHost;
  attributes->device = allocation == nullptr ? 0 : std::max(0, allocation->device);
  attributes->devicePointer = attributes->hostPointer = const_cast<void*>(data);
  return cudaSuccess;
}

__attribute__((noinline)) cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes,
                                                      cudaMemcpyKind kind, cudaStream_t stream) {
  if (const int error = injected_failure("cudaMemcpyAsync", cudaErrorInvalidValue))
    return fail(static_cast<cudaError_t>(error));
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool valid = kind == cudaMemcpyDefault ? is_in_bounds(to, bytes) && is_in_bounds(from, bytes)
                                               : lies(to, bytes, to_device) && lies(from, bytes, from_device);
  if (!valid) return fail(cudaErrorInvalidValue);
  return enqueue(stream, [to, from, bytes] { std::memmove(to, from, bytes); });
}

__attribute__((noinline)) cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes,
                                                      cudaStream_t stream) {
  if (!lies(data, bytes, true)) return fail(cudaErrorInvalidValue);
  return enqueue(stream, [data, value, bytes] { std::memset(data, value, bytes); });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr); error != cudaSuccess)
    return error;
  return cudaStreamSynchronize(nullptr);
}

// Of device memory it does not wait for its end, and streams made with cudaStreamNonBlocking do not wait for it.
cudaError_t cudaMemset(void* data, int value, std::size_t bytes) {
  return cudaMemsetAsync(data, value, bytes, nullptr);
}

}  // extern "C"
