#include "trainer/run/signals.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <string_view>
#include <unistd.h>

#include "core/error.hpp"

namespace muster {
namespace {

constexpr std::int64_t seconds_of_one_wish = 5;

struct StopSignal {
  int number;
  std::string_view name;
  bool may_be_ignored;  // by whoever started the program: nohup, a shell's background
};
constexpr std::array<StopSignal, 4> stop_signals = {{{SIGINT, "SIGINT", true},
                                                     {SIGTERM, "SIGTERM", false},
                                                     {SIGUSR1, "SIGUSR1", false},
                                                     {SIGHUP, "SIGHUP", true}}};

// The only state that a signal handler may touch. When each signal first came, in seconds; 0: it did not.
std::array<std::atomic<std::int64_t>, stop_signals.size()> first_came{};
std::atomic<bool> asked = false, speaks_for_all = false;
std::atomic<std::int64_t> unsaved_steps = 0;
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

// A line put together without what a handler may not call.
class Line {
 public:
  void add(std::string_view text) {
    for (const char c : text)
      if (size_ < text_.size()) text_[size_++] = c;
  }
  void add(std::int64_t number) {
    std::array<char, 20> digits{};
    std::size_t at = digits.size();
    do digits[--at] = static_cast<char>('0' + number % 10);
    while ((number /= 10) > 0);
    add({digits.data() + at, digits.size() - at});
  }
  void write() {
    if (::write(STDERR_FILENO, text_.data(), size_) < 0) return;  // nobody listens
  }

 private:
  std::array<char, 200> text_{};
  std::size_t size_ = 0;
};

void on_signal(int number) {
  const int kept = errno;
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  const std::int64_t now = time.tv_sec + 1;
  std::size_t which = 0;
  while (stop_signals[which].number != number) ++which;
  std::int64_t first = 0;
  const bool again = !first_came[which].compare_exchange_strong(first, now);
  Line line;
  if (again && now - first > seconds_of_one_wish) {
    line.add(stop_signals[which].name);
    line.add(" again: ended at once; steps since the last checkpoint, which are lost: ");
    line.add(unsaved_steps);
    line.add("\n");
    line.write();
    _exit(static_cast<int>(ExitCode::interrupted));
  }
  if (!asked.exchange(true) && speaks_for_all) {
    line.add(stop_signals[which].name);
    line.add(": stopping as soon as what is new can be saved; again after ");
    line.add(seconds_of_one_wish);
    line.add(" s it ends at once, unsaved\n");
    line.write();
  }
  errno = kept;
}

}  // namespace

void watch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const StopSignal& signal : stop_signals) {
    struct sigaction before {};
    check(sigaction(signal.number, nullptr, &before) == 0, "a signal's action can be read");
    if (signal.may_be_ignored && before.sa_handler == SIG_IGN) continue;
    check(sigaction(signal.number, &action, nullptr) == 0, "a signal handler can be installed");
  }
  check(std::signal(SIGPIPE, SIG_IGN) != SIG_ERR, "a signal can be ignored");
}

bool stop_requested() { return asked; }

void speak_of_stop_signals(bool speaks) { speaks_for_all = speaks; }

void set_unsaved_steps(std::int64_t steps) { unsaved_steps = steps; }

}  // namespace muster
