#include "trainer/generate/written_text.hpp"

#include <algorithm>

#include "core/text.hpp"

namespace muster {
namespace {

// Whether further bytes can make a character of these.
bool begins_character(const std::string& bytes) {
  return std::ranges::any_of(
      std::initializer_list<const char*>{"\x80\x80\x80", "\x90\x80\x80", "\xa0\x80\x80"},
      [&](const char* rest) { return character_bytes(bytes + rest) > bytes.size(); });
}

}  // namespace

std::string WrittenText::add(std::string_view bytes) {
  pending_ += bytes;
  return take(true);
}

std::string WrittenText::end() { return take(false); }

std::string WrittenText::take(bool more_may_come) {
  constexpr std::string_view unknown_character = "\xef\xbf\xbd";
  std::string text;
  while (!pending_.empty()) {
    const std::size_t bytes = character_bytes(pending_);
    if (bytes == 0 && more_may_come && begins_character(pending_)) break;
    text += bytes == 0 ? unknown_character : std::string_view(pending_).substr(0, bytes);
    pending_.erase(0, std::max<std::size_t>(1, bytes));
  }
  return on_terminal_ ? without_controls(text, "\t\n") : text;
}

}  // namespace muster
