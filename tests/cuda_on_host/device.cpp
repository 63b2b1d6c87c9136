// Devices and errors of the CUDA runtime on the host.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "tests/cuda_on_host/streams.hpp"

namespace cuda_on_host {
namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int device_of_this_thread = 0;
std::atomic<cudaError_t> broken_by{cudaSuccess};

constexpr int multiprocessors = 4;
constexpr int shared_bytes = 48 << 10;
constexpr int shared_bytes_on_request = 227 << 10;
constexpr int threads_a_block = 1024;
constexpr int threads_a_multiprocessor = 2048;

// As the driver and the runtime are told apart: 0 is no driver.
int driver_version() { return static_cast<int>(setting("DRIVER", CUDART_VERSION)); }

}  // namespace

int current_device() { return device_of_this_thread; }
int device_count() { return static_cast<int>(setting("DEVICES", 1)); }

cudaError_t fail(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t broken() {
  const Hidden hidden;
  return broken_by.load();
}

void break_device(cudaError_t error) {
  const Hidden hidden;
  broken_by = error;
}

int injected_failure(const char* function, int usual_error) {
  static const std::string wanted = [] {
    const char* text = std::getenv("CUDA_ON_HOST_FAIL");
    return std::string(text == nullptr ? "" : text);
  }();
  if (wanted.empty()) return 0;
  const auto colon = std::min(wanted.find(':'), wanted.size()),
             equals = std::min(wanted.find('='), wanted.size());
  if (wanted.substr(0, std::min(colon, equals)) != function) return 0;
  const Hidden hidden;
  static std::atomic<int> left = colon < wanted.size() ? std::atoi(wanted.c_str() + colon + 1) : 1;
  if (left.fetch_sub(1) != 1) return 0;
  return equals < wanted.size() ? std::atoi(wanted.c_str() + equals + 1) : usual_error;
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

const char* cudaGetErrorName(cudaError_t error) {
  static const std::map<cudaError_t, const char*> names = {
      {cudaSuccess, "cudaSuccess"},
      {cudaErrorInvalidValue, "cudaErrorInvalidValue"},
      {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation"},
      {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration"},
      {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver"},
      {cudaErrorNoDevice, "cudaErrorNoDevice"},
      {cudaErrorInvalidDevice, "cudaErrorInvalidDevice"},
      {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle"},
      {cudaErrorIllegalAddress, "cudaErrorIllegalAddress"},
      {cudaErrorIllegalState, "cudaErrorIllegalState"},
      {cudaErrorLaunchFailure, "cudaErrorLaunchFailure"},
      {cudaErrorNotPermitted, "cudaErrorNotPermitted"},
      {cudaErrorNotReady, "cudaErrorNotReady"},
      {cudaErrorCapturedEvent, "cudaErrorCapturedEvent"},
      {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported"},
      {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated"},
      {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge"},
      {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched"},
      {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined"},
      {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation"},
  };
  const auto found = names.find(error);
  return found == names.end() ? "another cudaError" : found->second;
}

const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = driver_version();
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (driver_version() < CUDART_VERSION) return fail(cudaErrorInsufficientDriver);
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  *count = device_count();
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count()) return fail(cudaErrorInvalidDevice);
  device_of_this_thread = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= device_count()) return fail(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "CUDA on host");
  properties->major = 9;
  properties->minor = 0;
  properties->multiProcessorCount = multiprocessors;
  properties->warpSize = 32;
  properties->totalGlobalMem = static_cast<std::size_t>(setting("MEMORY_MB", 4096)) << 20;
  properties->maxThreadsPerBlock = threads_a_block;
  properties->maxThreadsPerMultiProcessor = threads_a_multiprocessor;
  properties->sharedMemPerBlock = shared_bytes;
  properties->sharedMemPerBlockOptin = shared_bytes_on_request;
  properties->l2CacheSize = 50 << 20;
  properties->memoryBusWidth = 5120;
  // Each in a place of its own, where no machine has one.
  properties->pciDomainID = 0xffff;
  properties->pciBusID = device + 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  static const std::map<cudaDeviceAttr, int> values = {
      {cudaDevAttrMultiProcessorCount, multiprocessors},
      {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrComputeCapabilityMinor, 0},
      {cudaDevAttrMaxSharedMemoryPerBlock, shared_bytes},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, shared_bytes_on_request},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxThreadsPerBlock, threads_a_block},
      {cudaDevAttrMaxThreadsPerMultiProcessor, threads_a_multiprocessor},
      {cudaDevAttrL2CacheSize, 50 << 20},
  };
  const auto found = values.find(attribute);
  if (device < 0 || device >= device_count() || found == values.end()) return fail(cudaErrorInvalidValue);
  *value = found->second;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  if (device < 0 || device >= device_count()) return fail(cudaErrorInvalidDevice);
  std::snprintf(text, static_cast<std::size_t>(length), "0000:%02x:00.0", device);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int threads,
                                                                   std::size_t, unsigned) {
  *blocks = threads_a_multiprocessor / threads;
  return cudaSuccess;
}

}  // extern "C"
