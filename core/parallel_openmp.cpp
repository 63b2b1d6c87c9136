// Parallel loops by OpenMP.
#include <omp.h>

#include "core/parallel.hpp"

namespace muster {

int thread_count() { return omp_get_max_threads(); }

void set_thread_count(int threads) { omp_set_num_threads(threads); }

void detail::parallel_tasks(std::int64_t tasks, Task run, void* context) {
  if (tasks <= 1 || omp_get_max_threads() == 1) {
    for (std::int64_t task = 0; task < tasks; ++task) run(context, task, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t task = 0; task < tasks; ++task) run(context, task, omp_get_thread_num());
}

}  // namespace muster
