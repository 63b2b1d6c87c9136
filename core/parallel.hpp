// Loops over threads. The results never depend on the number of threads: a task computes the same whichever
// thread runs it, and reductions run over fixed blocks.
#pragma once

#include <cstdint>
#include <type_traits>

namespace muster {

namespace detail {
using Task = void (*)(void* context, std::int64_t task, int thread);
void parallel_tasks(std::int64_t tasks, Task run, void* context);
}  // namespace detail

// Threads that parallel loops of the calling thread use. At least 1.
int thread_count();
// Sets it for the calling thread (a rank that is a thread of its own sets its own).
void set_thread_count(int threads);

// Calls body(task, thread) for each task in [0, tasks), thread in [0, thread_count()). Tasks are handed out
// one by one in order, so uneven tasks balance; make tasks large enough (tens of microseconds).
template <class Body>
void parallel_tasks(std::int64_t tasks, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  detail::parallel_tasks(
      tasks,
      [](void* context, std::int64_t task, int thread) { (*static_cast<Plain*>(context))(task, thread); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Calls body(begin, end) for consecutive ranges that cover [0, count), each a multiple of `grain` long but
// the last. The ranges depend on count and grain only.
template <class Body>
void parallel_ranges(std::int64_t count, std::int64_t grain, Body&& body) {
  const std::int64_t tasks = (count + grain - 1) / grain;
  parallel_tasks(tasks, [&](std::int64_t task, int) {
    const std::int64_t begin = task * grain;
    body(begin, begin + grain < count ? begin + grain : count);
  });
}

}  // namespace muster
