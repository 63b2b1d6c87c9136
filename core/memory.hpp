// Owned memory, and the account that counts every byte of it by kind.
//
// Every byte that Muster takes comes from a Buffer, so that the counters of a MemoryAccount can be compared
// with the plan exactly, kind by kind.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace muster {

enum class MemoryKind : std::uint8_t {
  parameters,       // f32 master weights
  compute_weights,  // bf16 copies of them
  gradients,        // f32 gradient spaces, one for each open subtree of shards
  optimizer,        // Adam moments of the owned range
  activations,      // the arena of one micro-batch: activations, their gradients, workspaces
  communication,    // staging for pieces of other ranks' gradients
  data,             // the prefetch ring and the input tensors
  checkpoint,       // snapshot being written
  cache,            // KV cache of generation
  count_,
};
inline constexpr std::size_t memory_kinds = static_cast<std::size_t>(MemoryKind::count_);

std::string_view name_of(MemoryKind kind);

// Bytes held now and at most, by kind. One account belongs to a run; it outlives its buffers.
class MemoryAccount {
 public:
  std::uint64_t now(MemoryKind kind) const { return now_[index(kind)].load(); }
  std::uint64_t peak(MemoryKind kind) const { return peak_[index(kind)].load(); }

 private:
  friend class Buffer;
  static std::size_t index(MemoryKind kind) { return static_cast<std::size_t>(kind); }
  void take(MemoryKind kind, std::uint64_t bytes);
  void give(MemoryKind kind, std::uint64_t bytes);

  std::array<std::atomic<std::uint64_t>, memory_kinds> now_{};
  std::array<std::atomic<std::uint64_t>, memory_kinds> peak_{};
};

// A place that memory comes from: the host's, pinned host memory, a GPU's.
class Memory {
 public:
  virtual ~Memory() = default;
  // Aligned to a page, zeroed; null when there is none left.
  virtual std::byte* allocate(std::uint64_t bytes) const = 0;
  virtual void release(std::byte* data, std::uint64_t bytes) const = 0;
  // Where this is, for messages: "the system", "GPU 0".
  virtual std::string_view name() const = 0;
};
const Memory& host_memory();

// Owning memory, aligned to a page, zeroed; movable. Throws UserError when there is none left. `memory` and
// `account` outlive it.
class Buffer {
 public:
  static constexpr std::size_t alignment = 4096;
  // What a Buffer of `bytes` counts in its account: rounded up to whole pages.
  static constexpr std::uint64_t counted(std::uint64_t bytes) {
    return (bytes + alignment - 1) / alignment * alignment;
  }

  Buffer() = default;
  Buffer(MemoryAccount& account, MemoryKind kind, std::uint64_t bytes, const Memory& memory = host_memory());
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return data_; }
  std::uint64_t bytes() const { return bytes_; }
  bool empty() const { return bytes_ == 0; }
  template <class T>
  std::span<T> as() const {
    return {reinterpret_cast<T*>(data_), bytes_ / sizeof(T)};
  }

 private:
  MemoryAccount* account_ = nullptr;
  const Memory* memory_ = nullptr;
  MemoryKind kind_ = MemoryKind::parameters;
  std::byte* data_ = nullptr;
  std::uint64_t bytes_ = 0;
};

}  // namespace muster
