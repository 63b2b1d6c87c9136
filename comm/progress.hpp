// The progress thread: it alone touches the transports of the communicators that share it. It waits
// passively, because on a machine with more threads than cores a spinning thread takes the cores from those
// who compute.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace muster {

// What the progress thread drives.
class Progressing {
 public:
  virtual ~Progressing() = default;
  // Does what can be done without blocking; true if anything was.
  virtual bool advance() = 0;
  // Nothing is under way.
  virtual bool idle() const = 0;
};

class ProgressThread {
 public:
  ProgressThread();
  // All Progressing objects have been removed before.
  ~ProgressThread();

  // Runs `job` on the progress thread, after all jobs posted before. It must not throw.
  void post(std::function<void()> job);
  // The same, and waits until it is done; rethrows what it throws.
  void call(const std::function<void()>& job);

  // Called on the progress thread only.
  void add(Progressing& object);
  void remove(Progressing& object);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::vector<Progressing*> objects_;  // touched by the thread only
  std::thread thread_;
};

}  // namespace muster
