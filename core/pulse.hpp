// The pulse of a rank: what its thread is at that may hang, and that it gets on there. The watchdog (comm/watchdog.hpp)
// reads it from other threads.
//
// Work with files is told, and a rank at such work lives as long as it beats or its thread computes. No call to a disk
// tells how far it is; so what writes, syncs or removes is given more time for one call than what reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <mutex>
#include <string>
#include <string_view>

namespace muster {

class Pulse {
 public:
  enum class Kind : std::uint8_t {
    none,    // of the work told here: it may compute, or wait for other ranks
    usual,   // reading, and preparing in memory
    writing  // to a disk, which may take its time to sync or to remove what it was given
  };
  struct Task {
    Kind kind = Kind::none;
    std::string what;         // "loading the checkpoint"
    std::uint64_t bytes = 0;  // that may travel to or from the disk within one call
  };

  // Of the thread that makes it.
  Pulse();

  // Until its end, the work is what this rank is at; then it is again what it was before.
  class Work {
   public:
    Work(Pulse& pulse, Task task);
    ~Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

   private:
    Pulse& pulse_;
    Task before_;
  };
  [[nodiscard]] Work work(std::string_view what) { return {*this, {Kind::usual, std::string(what)}}; }
  [[nodiscard]] Work writing(std::string_view what, std::uint64_t bytes = 0) {
    return {*this, {Kind::writing, std::string(what), bytes}};
  }
  // A part of the work is done.
  void beat() { beats_.fetch_add(1, std::memory_order_relaxed); }

  // The training step, and the file of this rank's last words, for reports.
  void set_step(std::int64_t step) { step_.store(step, std::memory_order_relaxed); }
  void set_log(const std::string& path);

  // From any thread.
  struct Reading {
    std::uint64_t moved = 0;  // grows when the rank gets on
    Task task;
  };
  Reading read() const;
  std::int64_t step() const { return step_.load(std::memory_order_relaxed); }
  std::string log() const;

 private:
  Task replace(Task task);

  std::atomic<std::uint64_t> beats_ = 0;
  std::atomic<std::int64_t> step_ = 0;
  clockid_t computed_;  // the processor's time that the thread took
  mutable std::mutex mutex_;
  Task task_;
  std::string log_;
};

}  // namespace muster
