#include "trainer/run/signals.hpp"

#include <csignal>
#include <ctime>
#include <unistd.h>

#include "core/error.hpp"

namespace muster {
namespace {

// A batch system may say the same twice: Slurm, at a time limit, within a second.
constexpr std::sig_atomic_t seconds_of_one_wish = 5;

// The only state that a signal handler may touch.
volatile std::sig_atomic_t asked = 0, asked_at = 0;

void on_signal(int) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const auto seconds = static_cast<std::sig_atomic_t>(now.tv_sec);
  if (asked == 0)
    asked_at = seconds;
  else if (seconds - asked_at > seconds_of_one_wish)
    _exit(static_cast<int>(ExitCode::interrupted));
  asked = 1;
}

}  // namespace

void watch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGUSR1})
    check(sigaction(signal, &action, nullptr) == 0, "a signal handler can be installed");
}

bool stop_requested() { return asked != 0; }

}  // namespace muster
