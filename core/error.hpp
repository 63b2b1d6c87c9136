// Two kinds of failure: what a user can mend (UserError) and what is a defect of this program (Defect).
#pragma once

#include <fmt/format.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/text.hpp"

namespace muster {

// Exit codes of the program; scripts and batch systems rely on them.
enum class ExitCode : int {
  success = 0,
  defect = 1,      // a bug: the message shows file and line
  user_error = 2,  // one line says what, where and how to mend it
  try_again = 75,  // a peer was lost or hung: restarting may help
  // Stopped by a signal or a time limit after saving: start again to go on. After a second signal nothing is saved, and
  // the steps since the last checkpoint are lost.
  interrupted = 85,
};

// Something that the user can mend. The message is one line: what, where, and the remedy. Texts that it quotes come from
// outside: what is long is cut, and nothing in them reaches a terminal as a control character.
class UserError : public std::runtime_error {
 public:
  explicit UserError(const std::string& message) : std::runtime_error(message) {}

  template <class... Args>
  UserError(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(filled(format, quoted(args)...)) {}

 private:
  template <class T>
  static decltype(auto) quoted(const T& value) {
    if constexpr (std::is_convertible_v<const T&, std::string_view>)
      return quotable(value);
    else
      return (value);
  }
  template <class... Args>
  static std::string filled(fmt::string_view format, const Args&... args) {
    return fmt::vformat(format, fmt::make_format_args(args...));
  }
};

// A peer rank was lost or a collective timed out; exit code try_again.
class PeerError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Where in the source a check stands. (clang 14, whose clang-tidy checks this tree, has no
// std::source_location.)
struct SourceLine {
  const char* file;
  int line;

  static constexpr SourceLine current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// A broken promise inside the program; the message carries file and line.
class Defect : public std::logic_error {
 public:
  explicit Defect(const std::string& message, SourceLine where = SourceLine::current())
      : std::logic_error(fmt::format("{}:{}: {}", where.file, where.line, message)) {}
};

// Throws Defect unless `condition` holds.
inline void check(bool condition, const char* message, SourceLine where = SourceLine::current()) {
  if (!condition) throw Defect(message, where);
}

}  // namespace muster
