// A pool of threads for each thread that runs parallel loops.
//
// The caller takes tasks like everyone else and waits only for tasks that were really begun: a helper that
// the system has not scheduled yet delays nobody. (OpenMP's barrier waits for every thread of the team; on a
// busy host that made small loops 3 to 50 times slower. And ThreadSanitizer understands this pool.)
#include "core/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.hpp"

namespace muster {
namespace {

// True on threads that are running a task: loops inside a task run on that thread alone.
thread_local bool inside_task = false;

// Some 10 nanoseconds, in which a core that is shared works for its other thread and the memory is left in peace.
void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // "yield" takes no time on cores that run one thread
#endif
}

class Pool {
 public:
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error& error) {
      stop();
      throw UserError("cannot start {} threads ({}): lower run.threads", threads, error.code().message());
    }
  }

  ~Pool() { stop(); }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t tasks, detail::Task task, void* context) {
    tasks_ = tasks;
    task_ = task;
    context_ = context;
    failure_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    members_.store(1, std::memory_order_release);  // opens the loop: helpers may join from here on
    announce();
    take_tasks(0);
    members_.fetch_sub(1, std::memory_order_acq_rel);
    for (int spins = 0; members_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < spin_limit)
        pause_briefly();
      else
        std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static constexpr int spin_limit = 4000;  // about 50 microseconds

  void stop() {
    stopping_.store(true);
    announce();
    for (std::thread& worker : workers_) worker.join();
  }

  void announce() {
    loops_.fetch_add(1);
    if (sleeping_.load() > 0) loops_.notify_all();
  }

  void work(int thread) {
    for (std::uint32_t seen = 0; !stopping_.load();) {
      if (join()) {
        take_tasks(thread);
        members_.fetch_sub(1, std::memory_order_acq_rel);
      }
      seen = wait_for_loop(seen);
    }
  }

  // Returns when a loop was announced after the one numbered `seen`.
  std::uint32_t wait_for_loop(std::uint32_t seen) {
    for (int spins = 0; spins < spin_limit; ++spins) {
      if (const std::uint32_t now = loops_.load(); now != seen) return now;
      pause_briefly();
    }
    sleeping_.fetch_add(1);
    loops_.wait(seen);
    sleeping_.fetch_sub(1);
    return loops_.load();
  }

  // A loop is open while somebody is a member of it; the caller is the first.
  bool join() {
    int members = members_.load(std::memory_order_acquire);
    while (members > 0)
      if (members_.compare_exchange_weak(members, members + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  void take_tasks(int thread) {
    inside_task = true;
    for (std::int64_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) {
      try {
        task_(context_, task, thread);
      } catch (...) {
        const std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
    }
    inside_task = false;
  }

  std::int64_t tasks_ = 0;
  detail::Task task_ = nullptr;
  void* context_ = nullptr;
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  alignas(64) std::atomic<std::int64_t> next_ = 0;
  alignas(64) std::atomic<int> members_ = 0;
  alignas(64) std::atomic<std::uint32_t> loops_ = 0;
  std::atomic<int> sleeping_ = 0;
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> workers_;
};

// Of the calling thread; null until a loop needs it. Ranks that are threads of one process have a pool each.
thread_local std::unique_ptr<Pool> pool;
thread_local int wanted_threads = 0;

}  // namespace

int thread_count() {
  if (wanted_threads == 0)
    wanted_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return wanted_threads;
}

void set_thread_count(int threads) { wanted_threads = std::max(1, threads); }

void detail::parallel_tasks(std::int64_t tasks, Task run, void* context) {
  if (tasks <= 1 || inside_task || thread_count() == 1) {
    for (std::int64_t task = 0; task < tasks; ++task) run(context, task, 0);
    return;
  }
  if (!pool || pool->threads() != thread_count()) pool = std::make_unique<Pool>(thread_count());
  pool->run(tasks, run, context);
}

}  // namespace muster
