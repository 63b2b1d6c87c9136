// The log of a rank: everything into log/rank-N.log, and on the rank that speaks also onto the screen.
#pragma once

#include <fmt/format.h>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace spdlog {
class logger;
}

namespace muster {

class Log {
 public:
  // Appends to `file`. With `console`, lines also go to the standard output as they are, those that warn to the
  // standard error, as far as these take them at once.
  Log(const std::string& file, bool console);

  void info(std::string_view line) const;
  void warn(std::string_view line) const;

  template <class First, class... Rest>
  void info(fmt::format_string<First, Rest...> line, First&& first, Rest&&... rest) const {
    info(fmt::format(line, std::forward<First>(first), std::forward<Rest>(rest)...));
  }
  template <class First, class... Rest>
  void warn(fmt::format_string<First, Rest...> line, First&& first, Rest&&... rest) const {
    warn(fmt::format(line, std::forward<First>(first), std::forward<Rest>(rest)...));
  }

 private:
  std::shared_ptr<spdlog::logger> logger_;  // in no registry: whoever logs is given this
};

}  // namespace muster
