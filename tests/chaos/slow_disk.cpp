// A disk that is slow, full or broken where a test wants it: preloaded into a program (LD_PRELOAD), it stands before the C
// library's calls on files.
//
//   SLOW_DISK="fsync 1+ delay=2.5 */checkpoints/*; unlink 3 fail=EIO *; read 2 stop */train-*"
//
// A rule is KIND N ACTION PATTERN. KIND is open, read, write, fsync, rename or unlink. N: of the calls of this kind on
// paths that match, the N-th; "N+": all from the N-th on. ACTION: delay=SECONDS, hang (for ever), fail=ERRNO (ENOSPC, EIO,
// EDQUOT, ENOENT or a number), short (a read or write of half of the bytes), stop (the process stops itself, SIGSTOP) or
// kill (SIGKILL). PATTERN is one of fnmatch(3), against the path as the program gave it, or the absolute one of an open
// file.
//
//   SLOW_DISK_RANK=1      only in the rank that Open MPI started as this one
//   SLOW_DISK_LOG=FILE    a line for each call that a rule met, before its action: "PID fsync PATH"
//
// What the C library calls by itself, as for a FILE*, does not come by here.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <optional>
#include <sstream>
#include <string>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace {

enum class Action { delay, hang, fail, shorten, stop, kill };
// What rules make of a call.
enum class Fate { usual, shortened, failed };

struct Rule {
  std::string kind, pattern;
  long first = 1;
  bool and_after = false;
  Action action = Action::hang;
  double seconds = 0;
  int error = EIO;
  std::atomic<long> met = 0;
};

int error_named(const std::string& name) {
  if (name == "ENOSPC") return ENOSPC;
  if (name == "EDQUOT") return EDQUOT;
  if (name == "ENOENT") return ENOENT;
  if (name == "EIO") return EIO;
  return std::atoi(name.c_str());
}

[[noreturn]] void refuse(const std::string& rule) {
  std::fprintf(stderr, "slow_disk: no rule: %s\n", rule.c_str());
  std::_Exit(3);
}

std::deque<Rule> read_rules() {
  std::deque<Rule> rules;
  const char* const all = std::getenv("SLOW_DISK");
  const char* const only = std::getenv("SLOW_DISK_RANK");
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (all == nullptr || (only != nullptr && (rank == nullptr || std::strcmp(only, rank) != 0))) return rules;
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line, ';');) {
    std::istringstream words(line);
    std::string count, action;
    Rule& rule = rules.emplace_back();
    if (!(words >> rule.kind >> count >> action >> rule.pattern)) refuse(line);
    rule.first = std::atol(count.c_str());
    rule.and_after = count.back() == '+';
    const std::string value = action.substr(std::min(action.size(), action.find('=') + 1));
    if (action == "hang")
      rule.action = Action::hang;
    else if (action == "short")
      rule.action = Action::shorten;
    else if (action == "stop")
      rule.action = Action::stop;
    else if (action == "kill")
      rule.action = Action::kill;
    else if (action.rfind("delay=", 0) == 0)
      rule.action = Action::delay, rule.seconds = std::atof(value.c_str());
    else if (action.rfind("fail=", 0) == 0)
      rule.action = Action::fail, rule.error = error_named(value);
    else
      refuse(line);
  }
  return rules;
}

// Made by the first call, and never destroyed: calls come until the very end.
std::deque<Rule>& rules() {
  static auto* const all = new std::deque<Rule>(read_rules());
  return *all;
}

// By the system's own calls, which no rule meets.
void log(const char* kind, const std::string& path) {
  const char* const file = std::getenv("SLOW_DISK_LOG");
  if (file == nullptr) return;
  const std::string line = std::to_string(getpid()) + " " + kind + " " + path + "\n";
  const long descriptor =
      syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor < 0) return;
  syscall(SYS_write, descriptor, line.data(), line.size());
  syscall(SYS_close, descriptor);
}

// Of a call that is to fail, with errno.
Fate fate_of(const char* kind, const std::string& path) {
  Fate fate = Fate::usual;
  for (Rule& rule : rules()) {
    if (rule.kind != kind || fnmatch(rule.pattern.c_str(), path.c_str(), 0) != 0) continue;
    const long met = ++rule.met;
    if (met != rule.first && !(rule.and_after && met > rule.first)) continue;
    log(kind, path);
    switch (rule.action) {
      case Action::delay:
        std::this_thread::sleep_for(std::chrono::duration<double>(rule.seconds));
        break;
      case Action::hang:
        while (true) pause();
      case Action::stop:
        std::raise(SIGSTOP);
        break;
      case Action::kill:
        std::raise(SIGKILL);
        break;
      case Action::shorten:
        fate = std::max(fate, Fate::shortened);
        break;
      case Action::fail:
        errno = rule.error;
        fate = Fate::failed;
        break;
    }
  }
  return fate;
}

// How many of so many bytes to read or write; none where the call is to fail.
std::optional<std::size_t> share_of(std::size_t bytes, const char* kind, const std::string& path) {
  switch (fate_of(kind, path)) {
    case Fate::failed:
      return std::nullopt;
    case Fate::shortened:
      return bytes - bytes / 2;
    case Fate::usual:
      break;
  }
  return bytes;
}

std::string path_of(int descriptor) {
  if (rules().empty()) return {};
  std::array<char, 4096> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const long size = syscall(SYS_readlinkat, AT_FDCWD, link.c_str(), path.data(), path.size());
  return size > 0 ? std::string(path.data(), static_cast<std::size_t>(size)) : std::string();
}

// Of a name below an open folder, as unlinkat gives it.
std::string path_at(int folder, const char* name) {
  return folder == AT_FDCWD || name[0] == '/' ? name : path_of(folder) + "/" + name;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// Each calls the next of its name, unless a rule lets it fail.
#define BEFORE(kind, path, answer) \
  if (fate_of(kind, path) == Fate::failed) return answer

extern "C" {

int open(const char* path, int flags, ...) {
  std::va_list more;
  va_start(more, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;
  va_end(more);
  BEFORE("open", path, -1);
  static auto* const real = next<int(const char*, int, ...)>("open");
  return real(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  std::va_list more;
  va_start(more, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;
  va_end(more);
  BEFORE("open", path, -1);
  static auto* const real = next<int(const char*, int, ...)>("open64");
  return real(path, flags, mode);
}
ssize_t read(int descriptor, void* to, size_t size) {
  const auto share = share_of(size, "read", path_of(descriptor));
  if (!share) return -1;
  static auto* const real = next<ssize_t(int, void*, size_t)>("read");
  return real(descriptor, to, *share);
}
ssize_t pread(int descriptor, void* to, size_t size, off_t at) {
  const auto share = share_of(size, "read", path_of(descriptor));
  if (!share) return -1;
  static auto* const real = next<ssize_t(int, void*, size_t, off_t)>("pread");
  return real(descriptor, to, *share, at);
}
ssize_t pread64(int descriptor, void* to, size_t size, off64_t at) {
  const auto share = share_of(size, "read", path_of(descriptor));
  if (!share) return -1;
  static auto* const real = next<ssize_t(int, void*, size_t, off64_t)>("pread64");
  return real(descriptor, to, *share, at);
}
ssize_t write(int descriptor, const void* from, size_t size) {
  const auto share = share_of(size, "write", path_of(descriptor));
  if (!share) return -1;
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  return real(descriptor, from, *share);
}
ssize_t pwrite(int descriptor, const void* from, size_t size, off_t at) {
  const auto share = share_of(size, "write", path_of(descriptor));
  if (!share) return -1;
  static auto* const real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return real(descriptor, from, *share, at);
}
ssize_t pwrite64(int descriptor, const void* from, size_t size, off64_t at) {
  const auto share = share_of(size, "write", path_of(descriptor));
  if (!share) return -1;
  static auto* const real = next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  return real(descriptor, from, *share, at);
}
int fsync(int descriptor) {
  BEFORE("fsync", path_of(descriptor), -1);
  static auto* const real = next<int(int)>("fsync");
  return real(descriptor);
}
int rename(const char* from, const char* to) noexcept {
  BEFORE("rename", from, -1);
  static auto* const real = next<int(const char*, const char*)>("rename");
  return real(from, to);
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  BEFORE("rename", path_at(from_folder, from), -1);
  static auto* const real = next<int(int, const char*, int, const char*, unsigned)>("renameat2");
  return real(from_folder, from, to_folder, to, flags);
}
int unlink(const char* path) noexcept {
  BEFORE("unlink", path, -1);
  static auto* const real = next<int(const char*)>("unlink");
  return real(path);
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  BEFORE("unlink", path_at(folder, path), -1);
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  return real(folder, path, flags);
}
int remove(const char* path) noexcept {
  BEFORE("unlink", path, -1);
  static auto* const real = next<int(const char*)>("remove");
  return real(path);
}

}  // extern "C"
