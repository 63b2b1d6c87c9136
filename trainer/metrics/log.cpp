#include "trainer/metrics/log.hpp"

#include <cerrno>
#include <filesystem>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "core/error.hpp"

namespace muster {
namespace {

// Lines on the screen: warnings marked and apart, so that the output stays a table.
// By the system's own call: what the screen does not take, because it is closed or full, is lost, and no failure of the
// program.
class ConsoleSink final : public spdlog::sinks::base_sink<std::mutex> {
  void sink_it_(const spdlog::details::log_msg& message) override {
    const bool warns = message.level >= spdlog::level::warn;
    const std::string line = fmt::format("{}{}\n", warns ? "warning: " : "",
                                         std::string_view(message.payload.data(), message.payload.size()));
    for (std::string_view rest = line; !rest.empty();) {
      const ssize_t put = ::write(warns ? STDERR_FILENO : STDOUT_FILENO, rest.data(), rest.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return;
      rest.remove_prefix(static_cast<std::size_t>(put));
    }
  }
  void flush_() override {}
};

}  // namespace

std::shared_ptr<spdlog::logger> make_log(const std::string& file, bool console) {
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
  auto log = std::make_shared<spdlog::logger>("muster", sinks.begin(), sinks.end());
  log->flush_on(spdlog::level::info);
  // A full disk stops the run where it matters, at the metrics or a checkpoint; the log does not speak for
  // it.
  log->set_error_handler([](const std::string&) {});
  return log;
}

}  // namespace muster
