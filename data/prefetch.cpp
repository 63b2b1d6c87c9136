#include "data/prefetch.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.hpp"

namespace muster {
namespace {

std::uint64_t batch_bytes(const Loader::Options& options, std::int64_t count) {
  const std::int64_t elements = 3 * count * options.sequence + Loader::max_documents(count, options) + 1;
  return static_cast<std::uint64_t>(elements) * sizeof(std::int32_t);
}

}  // namespace

std::uint64_t Prefetch::memory(const Loader::Options& options, int depth, std::int64_t count) {
  return static_cast<std::uint64_t>(depth) * Buffer::counted(batch_bytes(options, count));
}

Prefetch::Prefetch(Loader& loader, MemoryAccount& account, int depth, std::int64_t count,
                   const Memory& memory)
    : Prefetch(
          loader.options(),
          [&loader](std::int64_t first_slot, std::int64_t samples, Batch& batch) {
            loader.fill(first_slot, samples, batch);
          },
          account, depth, count, memory) {}

Prefetch::Prefetch(const Loader::Options& options, Fill fill, MemoryAccount& account, int depth,
                   std::int64_t count, const Memory& memory)
    : options_(options), fill_(std::move(fill)), count_(count) {
  check(depth >= 2 && count >= 1, "a prefetch needs a batch in use and one ahead");
  for (int i = 0; i < depth; ++i)
    ring_.push_back(
        {Buffer(account, MemoryKind::data, batch_bytes(options_, count), memory), {}, nullptr, {}, {}});
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

void Prefetch::request(std::int64_t first_slot, std::int64_t count) {
  check(count >= 1 && count <= count_, "a request for more samples than a batch holds");
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back({first_slot, count});
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
    const Request request = requests_.front();
    requests_.pop_front();
    Place& place = ring_[read_ % ring_.size()];
    const Event in_use = std::exchange(place.in_use, {});
    lock.unlock();
    try {
      in_use.wait();
      place.begun = std::chrono::steady_clock::now();
      view(place, request.count);
      fill_(request.first_slot, request.count, place.batch);
    } catch (...) {
      place.failure = std::current_exception();
    }
    lock.lock();
    ++read_;
    changed_.notify_all();
  }
}

void Prefetch::view(Place& place, std::int64_t count) const {
  const auto tokens = static_cast<std::size_t>(count * options_.sequence);
  const auto starts = static_cast<std::size_t>(Loader::max_documents(count, options_)) + 1;
  const std::span<std::int32_t> memory = place.memory.as<std::int32_t>();
  place.batch = {.tokens = memory.subspan(0, tokens),
                 .targets = memory.subspan(tokens, tokens),
                 .positions = memory.subspan(2 * tokens, tokens),
                 .document_starts = memory.subspan(3 * tokens, starts)};
}

}  // namespace muster
