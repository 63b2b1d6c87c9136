// Streams and events, the same idea on all devices: a stream is an in-order queue, an event a point in it.
//
// The CPU's compute stream runs work inline and its events are complete at once. A ThreadStream has a thread
// of its own; tests use one with random delays to make a missing wait visible. A GPU's streams are its own
// (core/cuda/stream.hpp).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace muster {

// A point in a stream. Copies refer to the same point. A default Event is complete.
class Event {
 public:
  // What a kind of stream knows of its points.
  class Point {
   public:
    virtual ~Point() = default;
    virtual bool complete() const = 0;
    // Blocks until complete; rethrows what the stream's work threw before this point.
    virtual void wait() const = 0;
    // The point of a device's stream by which this one is complete, if it only adds to that; or itself.
    virtual const Point& on_stream() const { return *this; }
  };

  Event() = default;
  explicit Event(std::shared_ptr<const Point> point) : point_(std::move(point)) {}

  bool complete() const { return !point_ || point_->complete(); }
  void wait() const {
    if (point_) point_->wait();
  }
  const std::shared_ptr<const Point>& point() const { return point_; }

 private:
  std::shared_ptr<const Point> point_;
};

// An event that is completed by hand: by a stream with a thread, or a communicator's progress thread.
class Promise {
 public:
  Promise();
  Event event() const;
  void set_complete(std::exception_ptr failure = nullptr) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// A GPU's queue as its own libraries know it (cudaStream_t); null on CPUs.
using NativeStream = void*;

// Work that a stream has recorded, to be replayed as a whole: a CUDA graph.
class Recording {
 public:
  virtual ~Recording() = default;
};

class Stream {
 public:
  using Work = std::function<void(NativeStream)>;

  virtual ~Stream() = default;
  // Appends work; it runs after all work appended before it. A CPU's stream runs the function itself; a GPU's
  // stream calls it at once, and the function puts its kernels on the native stream.
  virtual void enqueue(Work work) = 0;
  // Appends a copy between any two memories that the device can reach.
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  // Work appended later starts only when `event` is complete.
  virtual void wait(const Event& event) = 0;
  // The point after all work appended so far.
  virtual Event record() = 0;
  // As record(): what it returns tells, once the point is complete, when that was (steady clock, seconds).
  virtual std::function<double()> timestamp() = 0;
  // Blocks until all appended work has run; rethrows its first failure.
  void synchronize() { record().wait(); }

  // Names what is appended while the result lives, for a profiler; null where none would see it.
  virtual std::shared_ptr<void> name_work(const std::function<std::string()>&) { return nullptr; }

  // Calls `append`, which appends work, and keeps that work instead of running it; null where streams cannot
  // (CPUs): nothing was called then.
  virtual std::shared_ptr<Recording> capture(const std::function<void()>&) { return nullptr; }
  // Appends what was captured on a stream of this device.
  virtual void replay(const Recording&) {}
};

class InlineStream final : public Stream {
 public:
  void enqueue(Work work) override { work(nullptr); }
  void copy(void* to, const void* from, std::size_t bytes) override;
  void wait(const Event& event) override { event.wait(); }
  Event record() override { return {}; }
  std::function<double()> timestamp() override;
};

// Runs its work on one thread of its own. `delay` (if any) is called before each piece of work.
class ThreadStream final : public Stream {
 public:
  explicit ThreadStream(std::function<void()> delay = {});
  ~ThreadStream() override;
  void enqueue(Work work) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void wait(const Event& event) override;
  Event record() override;
  std::function<double()> timestamp() override;

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

// Seconds on the steady clock: what timestamps are told in.
double steady_seconds();

}  // namespace muster
