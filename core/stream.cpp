#include "core/stream.hpp"

#include <chrono>
#include <cstring>
#include <utility>

namespace muster {

struct Promise::State final : Event::Point {
  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  bool done = false;
  std::exception_ptr failure;

  bool complete() const override {
    const std::lock_guard lock(mutex);
    return done;
  }
  void wait() const override {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done; });
    if (failure) std::rethrow_exception(failure);
  }
};

Promise::Promise() : state_(std::make_shared<State>()) {}

Event Promise::event() const { return Event(state_); }

void Promise::set_complete(std::exception_ptr failure) const {
  {
    const std::lock_guard lock(state_->mutex);
    state_->done = true;
    state_->failure = std::move(failure);
  }
  state_->changed.notify_all();
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void InlineStream::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memmove(to, from, bytes);
}

std::function<double()> InlineStream::timestamp() {
  return [now = steady_seconds()] { return now; };
}

ThreadStream::ThreadStream(std::function<void()> delay)
    : delay_(std::move(delay)), worker_([this] { run(); }) {}

ThreadStream::~ThreadStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  worker_.join();
}

void ThreadStream::enqueue(Work work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back([work = std::move(work)] { work(nullptr); });
  }
  changed_.notify_all();
}

void ThreadStream::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  enqueue([to, from, bytes](NativeStream) { std::memmove(to, from, bytes); });
}

void ThreadStream::wait(const Event& event) {
  enqueue([event](NativeStream) { event.wait(); });
}

Event ThreadStream::record() {
  const Promise promise;
  // An event completes even after a failure, and carries it.
  enqueue([this, promise](NativeStream) { promise.set_complete(failure_); });
  return promise.event();
}

std::function<double()> ThreadStream::timestamp() {
  const auto passed = std::make_shared<double>();
  enqueue([passed](NativeStream) { *passed = steady_seconds(); });
  return [passed] { return *passed; };
}

void ThreadStream::run() {
  while (true) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    if (delay_) delay_();
    try {
      work();
    } catch (...) {
      if (!failure_) failure_ = std::current_exception();
    }
  }
}

}  // namespace muster
