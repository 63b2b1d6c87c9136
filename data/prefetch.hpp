// Batches read ahead by a thread of its own, into a ring of memory that is taken once.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "core/fields.hpp"
#include "core/memory.hpp"
#include "core/stream.hpp"

namespace muster {

class Prefetch {
 public:
  // Writes the samples of slots [first_slot, first_slot + count), as Loader::fill does.
  using Fill = std::function<void(std::int64_t first_slot, std::int64_t count, Batch& batch)>;

  // `depth` batches of `count` samples: one in use, the others read ahead. What `fill` uses belongs to the prefetch's
  // thread as long as that lives.
  Prefetch(std::vector<Field> fields, Fill fill, MemoryAccount& account, int depth, std::int64_t count,
           const Memory& memory = host_memory());
  ~Prefetch();
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  // Bytes (MemoryKind::data) that it takes.
  static std::uint64_t memory(std::span<const Field> fields, int depth);

  // Asks for the batch of slots [first_slot, first_slot + count) of the constructor's count; never blocks.
  void request(std::int64_t first_slot);
  // The batch of the oldest request not yet given, valid until it is given back: before the next call. Blocks
  // until it is read; rethrows what reading it threw (there is nothing to give back then).
  const Batch& next();
  // The batch may be overwritten as soon as `read` is complete. Never blocks.
  void give_back(const Event& read = {});
  // How long the last next() waited for its data. That a batch in use by a device was to be overwritten first does not
  // count: the caller is ahead of the device then, not behind the data.
  double waited_ms() const { return waited_ms_; }

 private:
  struct Place {
    Buffer memory;
    Batch batch;
    std::exception_ptr failure;
    Event in_use;                                 // complete when it may be overwritten
    std::chrono::steady_clock::time_point begun;  // reading, when it could be
  };

  void run();

  const std::vector<Field> fields_;
  Fill fill_;
  std::int64_t count_;
  std::vector<Place> ring_;
  double waited_ms_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::int64_t> requests_;  // first slots, not yet begun
  std::uint64_t requested_ = 0;        // numbers of batches asked for, read, given, and given back
  std::uint64_t read_ = 0;
  std::uint64_t given_ = 0;
  std::uint64_t returned_ = 0;
  bool stopping_ = false;
  std::thread reader_;
};

}  // namespace muster
