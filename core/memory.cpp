#include "core/memory.hpp"

#include <sys/mman.h>
#include <utility>

#include "core/error.hpp"

namespace muster {

std::string_view name_of(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::parameters:
      return "parameters";
    case MemoryKind::compute_weights:
      return "compute weights";
    case MemoryKind::gradients:
      return "gradients";
    case MemoryKind::optimizer:
      return "optimizer";
    case MemoryKind::activations:
      return "activations";
    case MemoryKind::communication:
      return "communication";
    case MemoryKind::data:
      return "data";
    case MemoryKind::checkpoint:
      return "checkpoint";
    case MemoryKind::cache:
      return "cache";
    case MemoryKind::count_:
      break;
  }
  return "?";
}

void MemoryAccount::take(MemoryKind kind, std::uint64_t bytes) {
  const std::uint64_t now = now_[index(kind)].fetch_add(bytes) + bytes;
  std::uint64_t peak = peak_[index(kind)].load();
  while (peak < now && !peak_[index(kind)].compare_exchange_weak(peak, now)) {
  }
}

void MemoryAccount::give(MemoryKind kind, std::uint64_t bytes) { now_[index(kind)].fetch_sub(bytes); }

namespace {

class HostMemory final : public Memory {
 public:
  std::byte* allocate(std::uint64_t bytes) const override {
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    // Large pages make the big arenas faster; a system without them says no, which does no harm.
    if (bytes >= (4u << 20)) madvise(data, bytes, MADV_HUGEPAGE);
    return static_cast<std::byte*>(data);
  }
  void release(std::byte* data, std::uint64_t bytes) const override { munmap(data, bytes); }
  std::string_view name() const override { return "the system"; }
};

}  // namespace

const Memory& host_memory() {
  static const HostMemory memory;
  return memory;
}

Buffer::Buffer(MemoryAccount& account, MemoryKind kind, std::uint64_t bytes, const Memory& memory)
    : account_(&account), memory_(&memory), kind_(kind), bytes_(bytes) {
  if (bytes_ == 0) return;
  data_ = memory.allocate(counted(bytes_));
  if (data_ == nullptr)
    throw UserError("{} refused {} bytes for {}: make the model or train.micro_batch smaller", memory.name(),
                    bytes_, name_of(kind_));
  account_->take(kind_, counted(bytes_));
}

Buffer::Buffer(Buffer&& other) noexcept
    : account_(other.account_),
      memory_(other.memory_),
      kind_(other.kind_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(account_, other.account_);
  std::swap(memory_, other.memory_);
  std::swap(kind_, other.kind_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  memory_->release(data_, counted(bytes_));
  account_->give(kind_, counted(bytes_));
}

}  // namespace muster
