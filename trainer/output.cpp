#include "trainer/output.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "core/error.hpp"
#include "trainer/failure.hpp"

namespace muster {
namespace {

bool is_pipe_without_reader() {
  pollfd output{STDOUT_FILENO, POLLOUT, 0};
  return poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

}  // namespace

void hold_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(stream, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0)
      return;  // takes the lowest that is free
}

bool lost_output() { return std::ferror(stdout) != 0; }

int finish_output(int code) {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0;
  const int problem = errno;
  if (flushed && !lost_output()) return code;
  if (is_pipe_without_reader()) {
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  // What failed before is not known any more.
  return report_failure(UserError("the output is not complete{}: print to another file or disk",
                                  problem != 0 ? fmt::format(" ({})", std::strerror(problem)) : ""));
}

}  // namespace muster
