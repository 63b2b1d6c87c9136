// Where a communicator is tried: its device, and memory there, which tests fill and read.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "core/device.hpp"
#include "core/memory.hpp"

namespace muster {

class Place {
 public:
  Place(Communicator& its_comm, const Device& its_device)
      : comm(its_comm), device(its_device), stream_(device.make_stream(StreamPriority::normal)) {}

  // An array in the device's memory.
  template <class T>
  class Array {
   public:
    Array(Place& place, std::span<const T> values)
        : place_(&place),
          size_(values.size()),
          memory_(place.account_, MemoryKind::communication, values.size_bytes(), place.device.memory()) {
      place.copy(memory_.data(), values.data(), values.size_bytes());
    }
    std::span<T> span() const { return memory_.as<T>().first(size_); }
    std::span<std::byte> bytes() const { return std::as_writable_bytes(span()); }
    std::vector<T> values() const {
      std::vector<T> read(size_);
      place_->copy(read.data(), memory_.data(), read.size() * sizeof(T));
      return read;
    }

   private:
    Place* place_;
    std::size_t size_;
    Buffer memory_;
  };
  template <class T>
  Array<T> array(const std::vector<T>& values) {
    return Array<T>(*this, values);
  }

  Communicator& comm;
  const Device& device;

 private:
  void copy(void* to, const void* from, std::size_t bytes) const {
    stream_->copy(to, from, bytes);
    stream_->synchronize();
  }

  MemoryAccount account_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace muster
