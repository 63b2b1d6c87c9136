#include "data/prefetch.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.hpp"

namespace muster {

std::uint64_t Prefetch::memory(std::span<const Field> fields, int depth) {
  return static_cast<std::uint64_t>(depth) * Buffer::counted(Batch::bytes(fields));
}

Prefetch::Prefetch(std::vector<Field> fields, Fill fill, MemoryAccount& account, int depth,
                   std::int64_t count, const Memory& memory)
    : fields_(std::move(fields)), fill_(std::move(fill)), count_(count) {
  check(depth >= 2 && count >= 1, "a prefetch needs a batch in use and one ahead");
  for (int i = 0; i < depth; ++i) {
    Buffer of_batch(account, MemoryKind::data, Batch::bytes(fields_), memory);
    const Batch batch(fields_, of_batch.as<std::byte>());
    ring_.push_back({std::move(of_batch), batch, nullptr, {}, {}});
  }
  reader_ = std::thread([this] { run(); });
}

Prefetch::~Prefetch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  reader_.join();
}

void Prefetch::request(std::int64_t first_slot) {
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(first_slot);
    ++requested_;
  }
  changed_.notify_all();
}

const Batch& Prefetch::next() {
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  check(given_ < requested_, "next() without a request");
  check(returned_ == given_, "a batch is given back before the next");
  changed_.wait(lock, [&] { return read_ > given_; });
  Place& place = ring_[given_++ % ring_.size()];
  const std::chrono::duration<double, std::milli> waited =
      std::chrono::steady_clock::now() - std::max(start, place.begun);
  waited_ms_ = waited.count();
  if (place.failure) {
    ++returned_;
    changed_.notify_all();
    std::rethrow_exception(std::exchange(place.failure, nullptr));
  }
  return place.batch;
}

void Prefetch::give_back(const Event& read) {
  {
    const std::lock_guard lock(mutex_);
    check(returned_ < given_, "a batch that was given is given back");
    ring_[returned_++ % ring_.size()].in_use = read;
  }
  changed_.notify_all();
}

void Prefetch::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock,
                  [&] { return stopping_ || (!requests_.empty() && read_ - returned_ < ring_.size()); });
    if (stopping_) return;
    const std::int64_t first_slot = requests_.front();
    requests_.pop_front();
    Place& place = ring_[read_ % ring_.size()];
    const Event in_use = std::exchange(place.in_use, {});
    lock.unlock();
    try {
      in_use.wait();
      place.begun = std::chrono::steady_clock::now();
      fill_(first_slot, count_, place.batch);
    } catch (...) {
      place.failure = std::current_exception();
    }
    lock.lock();
    ++read_;
    changed_.notify_all();
  }
}

}  // namespace muster
