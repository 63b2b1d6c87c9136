#include "core/pulse.hpp"

#include <pthread.h>
#include <utility>

#include "core/error.hpp"

namespace muster {

Pulse::Pulse() {
  check(pthread_getcpuclockid(pthread_self(), &computed_) == 0, "a thread has a clock of its own");
}

Pulse::Task Pulse::replace(Task task) {
  beat();
  const std::lock_guard lock(mutex_);
  return std::exchange(task_, std::move(task));
}

Pulse::Work::Work(Pulse& pulse, Task task) : pulse_(pulse), before_(pulse.replace(std::move(task))) {}

Pulse::Work::~Work() { pulse_.replace(std::move(before_)); }

void Pulse::set_log(const std::string& path) {
  const std::lock_guard lock(mutex_);
  log_ = path;
}

std::string Pulse::log() const {
  const std::lock_guard lock(mutex_);
  return log_;
}

Pulse::Reading Pulse::read() const {
  const std::lock_guard lock(mutex_);
  Reading reading{beats_.load(std::memory_order_relaxed), task_};
  timespec computed{};
  // Outside of such work a thread may spin while it waits for others.
  if (task_.kind != Kind::none && clock_gettime(computed_, &computed) == 0)
    reading.moved += static_cast<std::uint64_t>(computed.tv_sec) * 1'000'000'000 +
                     static_cast<std::uint64_t>(computed.tv_nsec);
  return reading;
}

}  // namespace muster
