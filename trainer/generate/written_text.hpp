// What a model writes, as text: its tokens may be bytes that are no characters, or characters that a terminal obeys.
#pragma once

#include <string>
#include <string_view>

namespace muster {

class WrittenText {
 public:
  // On a terminal, control characters but tabs and ends of lines are shown as \xNN.
  explicit WrittenText(bool on_terminal) : on_terminal_(on_terminal) {}

  // What of the text so far is decided by `bytes`: whole characters, and U+FFFD for a byte that belongs to none.
  std::string add(std::string_view bytes);
  // What is left of a character that was cut short.
  std::string end();

 private:
  std::string take(bool more_may_come);

  bool on_terminal_;
  std::string pending_;
};

}  // namespace muster
