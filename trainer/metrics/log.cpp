#include "trainer/metrics/log.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "core/error.hpp"
#include "core/file.hpp"

namespace muster {
namespace {

// A standard stream, as long as it takes what it is given: a run waits for no screen. One that is closed, full or paused
// loses lines, which the log has.
class Screen {
 public:
  // Pipes and terminals are opened anew, since whether a write waits is a property of all who share a description.
  explicit Screen(int stream) {
    struct stat status {};
    int descriptor = -1;
    if (fstat(stream, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)))
      descriptor =
          open(fmt::format("/proc/self/fd/{}", stream).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (descriptor < 0) descriptor = fcntl(stream, F_DUPFD_CLOEXEC, 0);
    file_ = File::adopt(descriptor, "the screen");
  }

  void show(std::string_view line) {
    while (!line.empty()) {
      const ssize_t put = write(file_.descriptor(), line.data(), line.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && !(errno == EAGAIN && takes_more())) return;
      if (put > 0) line.remove_prefix(static_cast<std::size_t>(put));
    }
    patience_ = most_patience;
  }

 private:
  static constexpr int most_patience = 100;  // ms

  // A reader that does not come in time is not waited for again before it has.
  bool takes_more() {
    pollfd screen{file_.descriptor(), POLLOUT, 0};
    const bool takes = poll(&screen, 1, patience_) == 1;
    if (!takes) patience_ = 0;
    return takes;
  }

  File file_;
  int patience_ = most_patience;
};

// Lines on the screen: warnings marked and apart, so that the output stays a table.
class ConsoleSink final : public spdlog::sinks::base_sink<std::mutex> {
  void sink_it_(const spdlog::details::log_msg& message) override {
    const bool warns = message.level >= spdlog::level::warn;
    const std::string line = fmt::format("{}{}\n", warns ? "warning: " : "",
                                         std::string_view(message.payload.data(), message.payload.size()));
    (warns ? err_ : out_).show(line);
  }
  void flush_() override {}

  Screen out_{STDOUT_FILENO}, err_{STDERR_FILENO};
};

}  // namespace

Log::Log(const std::string& file, bool console) {
  std::vector<spdlog::sink_ptr> sinks;
  std::error_code unreadable;  // is told when the file is opened
  if (std::filesystem::exists(file, unreadable) && !std::filesystem::is_regular_file(file, unreadable))
    throw UserError("cannot open the log {}: it is no regular file; remove it", file);
  try {
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file));
  } catch (const spdlog::spdlog_ex& error) {
    throw UserError("cannot open the log {}: {}; check its folder's permissions and space", file,
                    error.what());
  }
  sinks[0]->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
  if (console) sinks.push_back(std::make_shared<ConsoleSink>());
  logger_ = std::make_shared<spdlog::logger>("muster", sinks.begin(), sinks.end());
  logger_->flush_on(spdlog::level::info);
  // A full disk stops the run where it matters, at the metrics or a checkpoint; the log does not speak for
  // it.
  logger_->set_error_handler([](const std::string&) {});
}

void Log::info(std::string_view line) const {
  logger_->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

void Log::warn(std::string_view line) const {
  logger_->log(spdlog::level::warn, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace muster
