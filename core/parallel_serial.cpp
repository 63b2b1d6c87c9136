// Parallel loops on the calling thread alone: for ThreadSanitizer, which does not know OpenMP's runtime.
#include "core/parallel.hpp"

namespace muster {

int thread_count() { return 1; }

void set_thread_count(int) {}

void detail::parallel_tasks(std::int64_t tasks, Task run, void* context) {
  for (std::int64_t task = 0; task < tasks; ++task) run(context, task, 0);
}

}  // namespace muster
