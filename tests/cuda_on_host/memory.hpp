// Device memory on the host: between guard pages, filled with NaN, and closed to the host's threads.
#pragma once

namespace cuda_on_host {

// While one lives, work of a stream runs on this thread, and device memory is open to it.
//
// With protection keys the thread alone gets the right. Processors without them have one gate for all threads: it is
// open while any stream works, and shut again when the host waits and all streams are idle, so that a host that touches
// device memory is still seen when it does so between two waits.
class DeviceMemoryOpen {
 public:
  DeviceMemoryOpen();
  ~DeviceMemoryOpen();
  DeviceMemoryOpen(const DeviceMemoryOpen&) = delete;
  DeviceMemoryOpen& operator=(const DeviceMemoryOpen&) = delete;
};

// Takes the right away for the time of a host function.
class DeviceMemoryClosed {
 public:
  DeviceMemoryClosed();
  ~DeviceMemoryClosed();
  DeviceMemoryClosed(const DeviceMemoryClosed&) = delete;
  DeviceMemoryClosed& operator=(const DeviceMemoryClosed&) = delete;
};

void close_idle_device_memory();

}  // namespace cuda_on_host
