#include "core/stream.hpp"

#include <utility>

namespace muster {

bool Event::complete() const {
  if (!state_) return true;
  const std::lock_guard lock(state_->mutex);
  return state_->complete;
}

void Event::wait() const {
  if (!state_) return;
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->complete; });
  if (state_->failure) std::rethrow_exception(state_->failure);
}

Event Event::pending() {
  Event event;
  event.state_ = std::make_shared<State>();
  return event;
}

void Event::set_complete(std::exception_ptr failure) const {
  {
    const std::lock_guard lock(state_->mutex);
    state_->complete = true;
    state_->failure = std::move(failure);
  }
  state_->changed.notify_all();
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

void ThreadStream::enqueue(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void ThreadStream::wait(const Event& event) {
  enqueue([event] { event.wait(); });
}

Event ThreadStream::record() {
  const Event event = Event::pending();
  // Not through enqueue's failure handling: an event completes even after a failure, and carries it.
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back([this, event] { event.set_complete(failure_); });
  }
  changed_.notify_all();
  return event;
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
