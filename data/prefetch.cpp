#include "data/prefetch.hpp"

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

Prefetch::Prefetch(Loader& loader, MemoryAccount& account, int depth, std::int64_t count)
    : Prefetch(
          loader.options(),
          [&loader](std::int64_t first_slot, std::int64_t samples, Batch& batch) {
            loader.fill(first_slot, samples, batch);
          },
          account, depth, count) {}

Prefetch::Prefetch(const Loader::Options& options, Fill fill, MemoryAccount& account, int depth,
                   std::int64_t count)
    : options_(options), fill_(std::move(fill)), count_(count) {
  check(depth >= 2 && count >= 1, "a prefetch needs a batch in use and one ahead");
  for (int i = 0; i < depth; ++i)
    ring_.push_back({Buffer(account, MemoryKind::data, batch_bytes(options_, count)), {}, nullptr});
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
  returned_ = given_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return read_ > given_; });
  const Place& place = ring_[given_++ % ring_.size()];
  waited_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (place.failure) std::rethrow_exception(place.failure);
  return place.batch;
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
    lock.unlock();
    place.failure = nullptr;
    try {
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
