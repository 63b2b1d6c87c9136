// Streams and events, the same idea on both backends: a stream is an in-order queue, an event a point in it.
//
// The CPU's compute stream runs work inline and its events are complete at once. A ThreadStream has a thread
// of its own: the communication stream is one, and tests use one with random delays to make a missing wait
// visible.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace muster {

// A point in a stream. Copies refer to the same point. A default Event is complete.
class Event {
 public:
  Event() = default;
  bool complete() const;
  // Blocks until complete; rethrows what the stream's work threw before this point.
  void wait() const;

  // For whoever completes the event from outside a Stream (a communicator's progress thread).
  static Event pending();
  void set_complete(std::exception_ptr failure = nullptr) const;

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool complete = false;
    std::exception_ptr failure;
  };
  std::shared_ptr<State> state_;
};

class Stream {
 public:
  virtual ~Stream() = default;
  // Appends work; it runs after all work appended before it.
  virtual void enqueue(std::function<void()> work) = 0;
  // Work appended later starts only when `event` is complete.
  virtual void wait(const Event& event) = 0;
  // The point after all work appended so far.
  virtual Event record() = 0;
  // Blocks until all appended work has run; rethrows its first failure.
  void synchronize() { record().wait(); }
};

class InlineStream final : public Stream {
 public:
  void enqueue(std::function<void()> work) override { work(); }
  void wait(const Event& event) override { event.wait(); }
  Event record() override { return {}; }
};

// Runs its work on one thread of its own. `delay` (if any) is called before each piece of work.
class ThreadStream final : public Stream {
 public:
  explicit ThreadStream(std::function<void()> delay = {});
  ~ThreadStream() override;
  void enqueue(std::function<void()> work) override;
  void wait(const Event& event) override;
  Event record() override;

 private:
  void run();

  std::function<void()> delay_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::exception_ptr failure_;  // touched by the worker only
  std::thread worker_;
};

}  // namespace muster
