#include "core/file.hpp"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/error.hpp"
#include "core/host.hpp"

namespace muster {
namespace {

[[noreturn]] void fail(std::string_view verb, const std::string& path, int error) {
  const char* remedy = error == ENOSPC || error == EDQUOT
                           ? ": free space on that disk or choose another folder"
                       : error == EACCES ? ": check its permissions"
                       : error == ENOENT ? ": check the path"
                       : error == EMFILE ? ": raise the limit of open files (ulimit -n)"
                                         : "";
  throw UserError("cannot {} {}: {}{}", verb, path, std::strerror(error), remedy);
}

// Of a pipe (a FIFO, too) there is no size and no place to read at; to open one would wait for its other end.
[[noreturn]] void refuse_pipe(std::string_view verb, const std::string& path) {
  throw UserError("cannot {} {}: it is a pipe (FIFO) or a socket, not a file; let a regular file stand there",
                  verb, path);
}

int open_file(std::string_view verb, const std::string& path, int flags) {
  const int descriptor = open(path.c_str(), flags | O_NONBLOCK | O_CLOEXEC, 0666);
  if (descriptor < 0 && errno == ENXIO) refuse_pipe(verb, path);
  if (descriptor < 0) fail(verb, path, errno);
  struct stat status {};
  if (fstat(descriptor, &status) == 0 && S_ISFIFO(status.st_mode)) {
    close(descriptor);
    refuse_pipe(verb, path);
  }
  return descriptor;
}

// What has ended is there until its parent notices, which the first process of a container may never do.
bool is_gone(pid_t process) {
  return kill(process, 0) == 0 ? !start_of_process(process).has_value() : errno == ESRCH;
}

// What a writer of this host and this space of process numbers left beside `path` when it was killed.
void remove_abandoned(const std::string& path, const std::string& prefix) {
  namespace fs = std::filesystem;
  const std::string name = fs::path(prefix).filename().string();
  const fs::path parent = fs::path(path).parent_path();
  std::error_code ignored;  // whoever writes next will look again
  for (fs::directory_iterator at(parent.empty() ? "." : parent, ignored), end; !ignored && at != end;
       at.increment(ignored)) {
    const std::string found = at->path().filename().string();
    if (!found.starts_with(name)) continue;
    pid_t writer = 0;
    const char* const last = found.data() + found.size();
    const auto [rest, error] = std::from_chars(found.data() + name.size(), last, writer);
    if (error == std::errc() && rest == last && writer > 0 && is_gone(writer)) unlink(at->path().c_str());
  }
}

}  // namespace

File File::open_to_read(const std::string& path) { return File(open_file("open", path, O_RDONLY), path); }

File File::create(const std::string& path) {
  return File(open_file("create", path, O_WRONLY | O_CREAT | O_TRUNC), path);
}

File File::open_to_update(const std::string& path) { return File(open_file("open", path, O_RDWR), path); }

File File::open_to_append(const std::string& path) {
  return File(open_file("open", path, O_WRONLY | O_APPEND), path);
}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) close(descriptor_);
}

std::uint64_t File::size() const {
  struct stat status {};
  if (fstat(descriptor_, &status) != 0) fail("examine", path_, errno);
  return static_cast<std::uint64_t>(status.st_size);
}

std::size_t File::read_some(std::span<std::byte> bytes, std::uint64_t offset) const {
  while (true) {
    const ssize_t got = pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) fail("read", path_, errno);
  }
}

void File::read_exactly(std::span<std::byte> bytes, std::uint64_t offset) const {
  while (!bytes.empty()) {
    const std::size_t got = read_some(bytes, offset);
    if (got == 0)
      throw UserError("{} is cut short: {} bytes are missing at offset {}; restore it or make it again",
                      path_, bytes.size(), offset);
    bytes = bytes.subspan(got);
    offset += got;
  }
}

void File::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor_, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

void File::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void File::write_at(std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t put = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
}

void File::sync() {
  if (fsync(descriptor_) != 0) fail("write", path_, errno);
}

namespace {

// Of the file as it is open and not of the process, or closing it a second time would give the lock away.
struct flock whole_file() {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return whole;
}

}  // namespace

bool File::lock() {
  struct flock wanted = whole_file();
  return fcntl(descriptor_, F_OFD_SETLK, &wanted) == 0;
}

std::optional<bool> File::is_locked() const {
  struct flock told = whole_file();
  if (fcntl(descriptor_, F_OFD_GETLK, &told) != 0) return std::nullopt;
  return told.l_type != F_UNLCK;
}

std::string read_text(const std::string& path) {
  const File file = File::open_to_read(path);
  std::string text(file.size(), '\0');
  file.read_exactly(std::as_writable_bytes(std::span(text)), 0);
  return text;
}

void sync_path(const std::string& path) { File::open_to_read(path).sync(); }

void write_text_atomically(const std::string& path, std::string_view text) {
  // A name of its own: another process may be writing the same file.
  const std::string prefix = fmt::format("{}.partial-{}-{}-", path, host_name(), pid_namespace());
  const std::string partial = prefix + std::to_string(getpid());
  remove_abandoned(path, prefix);
  try {
    File file = File::create(partial);
    file.write(text);
    file.sync();
  } catch (...) {
    unlink(partial.c_str());
    throw;
  }
  if (rename(partial.c_str(), path.c_str()) != 0) {
    const int problem = errno;
    unlink(partial.c_str());
    fail("rename to", path, problem);
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  sync_path(folder.empty() ? "." : folder);
}

}  // namespace muster
