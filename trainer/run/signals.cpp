#include "trainer/run/signals.hpp"

#include <csignal>
#include <unistd.h>

#include "core/error.hpp"

namespace muster {
namespace {

// The one piece of state that a signal handler may touch.
volatile std::sig_atomic_t asked = 0;

void on_signal(int) {
  if (asked != 0) _exit(static_cast<int>(ExitCode::interrupted));
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
